//! The operator's API as a service of its own.

fn main() -> std::process::ExitCode {
    fluent_webhooks::operator_main()
}
