//! `weir filter …`: one file a command, and what they share.

mod bench;
mod cases;
mod inspect;
mod new;
mod project;
mod run;
mod sections;
mod ship;
mod source;

use crate::args::FilterCommand;
use crate::failure::Done;
use crate::out::Out;

pub(crate) fn run(command: FilterCommand, out: &Out) -> Done {
    match command {
        FilterCommand::New(new) => new::new(&new, out),
        FilterCommand::Build(project) => project::Project::at(&project.project)?.build_and_tell(out),
        FilterCommand::Test(project) => cases::test(&project::Project::at(&project.project)?, out),
        FilterCommand::Run(run) => run::run(&run, out),
        FilterCommand::Bench(bench) => bench::bench(&bench, out),
        FilterCommand::Inspect(inspect) => inspect::inspect(&inspect, out),
        FilterCommand::Package(package) => ship::package(&package, out),
        FilterCommand::Push(push) => ship::push(&push, out),
        FilterCommand::Pull(pull) => ship::pull(&pull, out),
        FilterCommand::Keygen(keygen) => ship::keygen(&keygen, out),
    }
}
