//! Comparing with Fluent's log as a service of its own.

fn main() -> std::process::ExitCode {
    fluent_webhooks::reconciler_main()
}
