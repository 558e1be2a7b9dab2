//! Compiles the schema: Rust types, the descriptors that the YAML reader walks, and the same with comments for the reference.
//! Needs no protoc.
use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(["weir/config/v1/bootstrap.proto", "envoy/service/discovery/v3/discovery.proto"], ["proto"])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("documented.bin"), descriptors.encode_to_vec())?;
    // Comments are a third of the size, and no proxy reads them.
    let mut bare = descriptors.clone();
    bare.file.iter_mut().for_each(|file| file.source_code_info = None);
    std::fs::write(out.join("descriptors.bin"), bare.encode_to_vec())?;
    prost_build::Config::new().bytes(["."]).btree_map(["."]).compile_fds(descriptors)?;
    Ok(())
}
