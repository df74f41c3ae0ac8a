//! What is committed is what the protos make, and breaks nobody.
//!
//! `cargo xtask codegen` runs this with `UPDATE_EXPECT=1`, which writes anew;
//! `cargo xtask codegen --release` also makes today's contract the released one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use prost::Message;
use prost_types::{DescriptorProto, FileDescriptorSet};

const FILES: [&str; 5] = [
    "fluent/webhooks/v1/event.proto",
    "fluent/webhooks/v1/dispatcher.proto",
    "fluent/webhooks/v1/subscriptions.proto",
    "fluent/webhooks/v1/operator.proto",
    "fluent/webhooks/v1/jobs.proto",
];

const HOW: &str = "run `cargo xtask codegen` and commit what it writes";

fn protos() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto")
}

fn contract() -> FileDescriptorSet {
    protox::compile(FILES, [protos()]).unwrap()
}

fn is_asked_to(what: &str) -> bool {
    std::env::var_os(what).is_some()
}

#[track_caller]
fn check(path: &Path, made: &[u8]) {
    if is_asked_to("UPDATE_EXPECT") {
        std::fs::write(path, made).unwrap();
    }
    let committed = std::fs::read(path).unwrap_or_default();
    assert!(
        committed == made,
        "{} is not what the protos make: {HOW}",
        path.display()
    );
}

#[test]
fn the_committed_code_is_what_the_protos_make() {
    let folder = tempfile::tempdir().unwrap();
    tonic_prost_build::configure()
        .build_transport(false)
        .out_dir(folder.path())
        .bytes(".fluent.webhooks.v1.Event.body")
        .compile_fds(contract())
        .unwrap();
    let generated = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/generated");
    let code = std::fs::read(folder.path().join("fluent.webhooks.v1.rs")).unwrap();
    check(&generated.join("fluent.webhooks.v1.rs"), &code);
    check(
        &generated.join("descriptor.binpb"),
        &contract().encode_to_vec(),
    );
}

/// A copied example has the contract with it.
#[test]
fn the_examples_have_the_protos_inside() {
    for folder in ["python/fluent_webhooks/proto", "node/proto"] {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
        for file in FILES {
            let proto = std::fs::read(protos().join(file)).unwrap();
            check(&examples.join(folder).join(file), &proto);
        }
    }
}

#[test]
fn the_contract_is_compatible_with_the_released_one() {
    let path = protos().join("released.binpb");
    if is_asked_to("RELEASE_CONTRACT") {
        std::fs::write(&path, contract().encode_to_vec()).unwrap();
    }
    let released = FileDescriptorSet::decode(&*std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(
        broken(&facts(&released), &facts(&contract())),
        Vec::<String>::new()
    );
}

#[test]
fn what_would_break_a_client_is_found() {
    let released = contract();
    let change = |edit: fn(&mut FileDescriptorSet)| {
        let mut changed = released.clone();
        edit(&mut changed);
        broken(&facts(&released), &facts(&changed)).len()
    };
    let event = |set: &FileDescriptorSet| {
        set.file
            .iter()
            .position(|f| f.name().ends_with("v1/event.proto"))
    };
    assert!(event(&released).is_some());
    // A field that is new breaks nobody.
    assert_eq!(
        change(|set| message(set)
            .field
            .push(prost_types::FieldDescriptorProto::default())),
        0
    );
    assert_eq!(change(|set| drop(message(set).field.pop())), 1);
    assert_eq!(
        change(|set| message(set).field[0].name = Some("uid".to_owned())),
        1
    );
    assert_eq!(change(|set| message(set).field[0].number = Some(99)), 1);
    assert_eq!(change(|set| message(set).field[0].r#type = Some(3)), 1);
    assert_eq!(change(|set| drop(service(set).method.pop())), 1);
    assert_eq!(
        change(|set| service(set).method[0].server_streaming = Some(true)),
        1
    );
}

/// The message `Event`.
fn message(set: &mut FileDescriptorSet) -> &mut DescriptorProto {
    let file = set
        .file
        .iter_mut()
        .find(|f| f.name().ends_with("v1/event.proto"))
        .unwrap();
    &mut file.message_type[0]
}

fn service(set: &mut FileDescriptorSet) -> &mut prost_types::ServiceDescriptorProto {
    let file = set
        .file
        .iter_mut()
        .find(|f| f.name().ends_with("dispatcher.proto"))
        .unwrap();
    &mut file.service[0]
}

/// What clients depend on: every field, by message and number, with its name and
/// type; every method, with its messages and streams.
fn facts(set: &FileDescriptorSet) -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    for file in set
        .file
        .iter()
        .filter(|file| file.package() == "fluent.webhooks.v1")
    {
        for message in &file.message_type {
            fields(file.package(), message, &mut facts);
        }
        for service in &file.service {
            for method in &service.method {
                let shape = format!(
                    "({} stream {}) returns ({} stream {})",
                    method.input_type(),
                    method.client_streaming(),
                    method.output_type(),
                    method.server_streaming()
                );
                facts.insert(
                    format!("{}.{}/{}", file.package(), service.name(), method.name()),
                    shape,
                );
            }
        }
    }
    facts
}

fn fields(outer: &str, message: &DescriptorProto, facts: &mut BTreeMap<String, String>) {
    let name = format!("{outer}.{}", message.name());
    for field in &message.field {
        let shape = format!(
            "{} {:?} {:?} {}",
            field.name(),
            field.label(),
            field.r#type(),
            field.type_name()
        );
        facts.insert(format!("{name} = {}", field.number()), shape);
    }
    message
        .nested_type
        .iter()
        .for_each(|nested| fields(&name, nested, facts));
}

/// What was there and is not, or is different.
fn broken(released: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Vec<String> {
    let is_broken = |(what, shape): &(&String, &String)| now.get(*what) != Some(*shape);
    released
        .iter()
        .filter(is_broken)
        .map(|(what, shape)| format!("{what}: {shape}"))
        .collect()
}
