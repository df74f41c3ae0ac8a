//! fluent-webhooks with one more dispatcher.

fn main() -> std::process::ExitCode {
    fluent_webhooks::main(fluent_webhooks::registry().with::<my_dispatcher::FileDispatcher>())
}
