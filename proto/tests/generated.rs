//! The checked-in Rust is what the `.proto` files give. `LIFTWATCH_BLESS=1 cargo test -p proto` renews it.

use std::path::Path;

use prost::Message;

const FILES: [&str; 2] = ["liftwatch/telemetry/v1/telemetry.proto", "liftwatch/dispatch/v1/dispatch.proto"];

#[test]
fn generated_code_is_fresh() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fresh = tempfile::tempdir().expect("a temporary directory");
    let descriptors = protox::compile(FILES, [root.join("proto")]).expect("the .proto files compile");
    let mut config = tonic_prost_build::Config::new();
    config.bytes(["."]);
    tonic_prost_build::configure()
        .out_dir(fresh.path())
        .build_transport(true)
        .compile_fds_with_config(descriptors.clone(), config)
        .expect("code generation");
    std::fs::write(fresh.path().join("descriptors.bin"), descriptors.encode_to_vec()).expect("write");

    let checked_in = root.join("src/generated");
    for entry in std::fs::read_dir(fresh.path()).expect("read") {
        let path = entry.expect("entry").path();
        let name = path.file_name().expect("name");
        let new = std::fs::read(&path).expect("read");
        let place = checked_in.join(name);
        if std::env::var_os("LIFTWATCH_BLESS").is_some() {
            std::fs::write(&place, &new).expect("write");
        }
        assert!(
            std::fs::read(&place).is_ok_and(|old| old == new),
            "{} is stale: run LIFTWATCH_BLESS=1 cargo test -p proto",
            place.display()
        );
    }
}

#[test]
fn the_open_interface_shows_the_messages_word_for_word() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).expect(path);
    let (wire, proto) = (read("../docs/wire.md"), read("proto/liftwatch/telemetry/v1/telemetry.proto"));
    assert!(wire.contains(&format!("```proto\n{proto}```\n")), "copy telemetry.proto into docs/wire.md");
}
