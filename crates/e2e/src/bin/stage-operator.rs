//! The operator's API in a process of its own.

fn main() -> std::process::ExitCode {
    fluent_webhooks::operator_main()
}
