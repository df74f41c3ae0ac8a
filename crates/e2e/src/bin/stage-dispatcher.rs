//! The dispatcher as a service of its own, with one that misbehaves as told.

fn main() -> std::process::ExitCode {
    dispatcher::main(&dispatcher::registry().with::<e2e::Misbehaving>())
}
