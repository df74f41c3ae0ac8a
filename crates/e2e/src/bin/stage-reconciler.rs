//! The reconciler in a process of its own.

fn main() -> std::process::ExitCode {
    fluent_webhooks::reconciler_main()
}
