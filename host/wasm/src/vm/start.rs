//! From compiled code to an instance that is started and configured.
//!
//! The order is the one every SDK accepts: instantiate, `_initialize` (then `main`) or `_start`, root context, `proxy_on_vm_start`,
//! `proxy_on_configure`; then the same for each variant. Either all of it succeeds or there is no instance. Whether to try again, and when, is
//! decided elsewhere.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use wasmtime::{Instance, Store, UpdateDeadline, WasmParams, WasmResults};

use crate::binding::Binding;
use crate::stats::{Callback, Counter, Level, TrapKind};
use crate::vm::exports::Exports;
use crate::vm::state::{Root, State};
use crate::vm::trap::{Exit, Trap};
use crate::vm::{Bounds, Core, Vm, WorkerParts};

/// Why an instance could not be started.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Instantiation, a start function or a start callback trapped or ran too long.
    #[error(transparent)]
    Trapped(#[from] Trap),
    /// `proxy_on_vm_start` or `proxy_on_configure` answered false.
    #[error("filter {binding} refused its configuration{}: {callback} answered false", of_variant(variant))]
    Refused {
        /// The binding.
        binding: Arc<str>,
        /// Which of the two.
        callback: &'static str,
        /// The name of the variant, if it was one's configuration.
        variant: Option<String>,
    },
}

fn of_variant(name: &Option<String>) -> String {
    name.as_ref().map(|name| format!(" {name:?}")).unwrap_or_default()
}

impl Vm {
    /// A running instance of `binding`, ready for streams.
    pub(crate) fn start(binding: &Arc<Binding>, parts: &WorkerParts) -> Result<Rc<Self>, StartError> {
        let vm = Rc::new_cyclic(|me: &Weak<Self>| Self {
            binding: binding.clone(),
            core: RefCell::new(None),
            dead: Cell::new(false),
            deferred: RefCell::default(),
            delivering: Cell::new(false),
            streams: Cell::new(0),
            trap: RefCell::default(),
            me: me.clone(),
        });
        vm.run_start(parts).inspect_err(|_| {
            parts.stats.count(Counter::InstanceStartFailures);
            vm.dead.set(true);
        })?;
        Ok(vm)
    }

    fn run_start(&self, parts: &WorkerParts) -> Result<(), StartError> {
        let binding = &self.binding;
        let limits = &binding.config().limits;
        let mut starting = Starting::new(binding, parts, self.me.clone());
        let instance = starting.instantiate()?;
        starting.run_entry(&instance)?;
        let Starting { store, .. } = starting;
        let ticker = binding.engine().ticker();
        let bounds = Bounds { deadline: ticker.epochs(binding.start_patience()), output: limits.host_output };
        let mut core = Core { store, exports: Exports::default(), instance, bounds };
        for index in 0..=binding.config().variants.len() {
            if let Err(error) = configure(binding, &mut core, index) {
                core.store.data_mut().release();
                return Err(error);
            }
        }
        core.bounds.deadline = ticker.epochs(limits.callback_deadline);
        let state = core.store.data_mut();
        state.started = true;
        state.account_growth(true);
        state.stats.shift(Level::LiveInstances, 1);
        state.stats.count(Counter::InstanceStarts);
        *self.core.borrow_mut() = Some(core);
        Ok(())
    }
}

/// Root context, `proxy_on_vm_start` and `proxy_on_configure` of the binding's own configuration (0) or a variant's.
fn configure(binding: &Arc<Binding>, core: &mut Core, index: usize) -> Result<(), StartError> {
    let config = binding.config();
    let root = core.store.data_mut().contexts.insert_root();
    core.store.data_mut().roots.push(Root { id: root, period: 0, due: 0, lingers: false });
    let variant = index.checked_sub(1).and_then(|index| config.variants.get(index));
    let size = variant.map_or(&config.configuration, |variant| &variant.configuration).len() as u32;
    let refused =
        |callback| StartError::Refused { binding: config.name.clone(), callback, variant: variant.map(|variant| variant.name.clone()) };

    let created = core.call(Callback::ContextCreate, root, |exports| &exports.context_create, (root, 0));
    trapped(binding, core, created)?;
    let vm_size = config.vm_configuration.len() as u32;
    let started = core.call(Callback::VmStart, root, |exports| &exports.vm_start, (root, vm_size));
    if trapped(binding, core, started)? == Some(0) {
        return Err(refused("proxy_on_vm_start"));
    }
    let configured = core.call(Callback::Configure, root, |exports| &exports.configure, (root, size));
    if trapped(binding, core, configured)? == Some(0) {
        return Err(refused("proxy_on_configure"));
    }
    Ok(())
}

fn trapped<R>(binding: &Binding, core: &mut Core, result: wasmtime::Result<R>) -> Result<R, Trap> {
    result.map_err(|error| {
        let state = core.store.data();
        let trap = Trap::classify(binding, &error, state);
        count(state, &trap);
        trap
    })
}

/// Counts the end of an instance.
pub(super) fn count(state: &State, trap: &Trap) {
    state.stats.trap(trap.kind);
    if trap.kind == TrapKind::DeadlineExceeded {
        state.stats.count(Counter::DeadlineMisses);
    }
}

/// An instance before it has contexts.
struct Starting<'a> {
    binding: &'a Arc<Binding>,
    store: Store<State>,
}

impl<'a> Starting<'a> {
    fn new(binding: &'a Arc<Binding>, parts: &WorkerParts, vm: Weak<Vm>) -> Self {
        let engine = binding.engine();
        let mut store = Store::new(engine.wasmtime(), State::new(binding.clone(), parts, vm));
        store.limiter(|state| &mut state.limiter);
        engine.ticker().touch();
        let deadline = engine.ticker().epochs(binding.start_patience());
        store.set_epoch_deadline(deadline);
        store.epoch_deadline_callback(|mut context| match context.data_mut().look_at_time() {
            Some(epochs) => Ok(UpdateDeadline::Continue(epochs)),
            None => Err(wasmtime::Trap::Interrupt.into()),
        });
        store.data_mut().overdue = store.data().clock.after(deadline);
        Self { binding, store }
    }

    fn trap(&self, error: &wasmtime::Error) -> Trap {
        let state = self.store.data();
        let trap = Trap::classify(self.binding, error, state);
        state.stats.count_by(Counter::GrowthRefused, state.limiter.refused.into());
        count(state, &trap);
        trap
    }

    fn instantiate(&mut self) -> Result<Instance, Trap> {
        let instance = self.binding.instantiate(&mut self.store).map_err(|error| self.trap(&error))?;
        let memory = instance.get_memory(&mut self.store, "memory");
        let mut allocate = |name: &str| instance.get_typed_func(&mut self.store, name).ok();
        let allocate = allocate("proxy_on_memory_allocate").or_else(|| allocate("malloc"));
        let state = self.store.data_mut();
        state.memory = memory;
        state.allocate = allocate.map(Rc::new);
        Ok(instance)
    }

    /// `_initialize`, then `main` if that is exported too; otherwise `_start`; otherwise nothing.
    fn run_entry(&mut self, instance: &Instance) -> Result<(), Trap> {
        if self.run::<(), ()>(instance, "_initialize", ())?.is_none() {
            return self.run::<(), ()>(instance, "_start", ()).map(drop);
        }
        if self.run::<(u32, u32), u32>(instance, "main", (0, 0))?.is_none() {
            self.run::<(), u32>(instance, "__main_void", ())?;
        }
        Ok(())
    }

    fn run<P: WasmParams, R: WasmResults>(&mut self, instance: &Instance, name: &str, params: P) -> Result<Option<R>, Trap> {
        let Ok(func) = instance.get_typed_func::<P, R>(&mut self.store, name) else { return Ok(None) };
        match func.call(&mut self.store, params) {
            Ok(result) => Ok(Some(result)),
            // A command that ends well has called exit(0).
            Err(error) if matches!(error.downcast_ref::<Exit>(), Some(Exit(0))) => Ok(None),
            Err(error) => Err(self.trap(&error)),
        }
    }
}
