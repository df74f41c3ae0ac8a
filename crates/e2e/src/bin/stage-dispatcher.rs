//! The dispatcher in a process of its own, with a kind that misbehaves on demand.

fn main() -> std::process::ExitCode {
    dispatcher::main(&dispatcher::registry().with::<e2e::Misbehaving>())
}
