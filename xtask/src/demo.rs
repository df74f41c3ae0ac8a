use std::process::Command;

use crate::{cargo, root, target};

/// Builds the product and runs its demo.
pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    println!("Building (a few minutes the first time) ...");
    crate::run(&mut cargo(&["build", "--quiet", "--package", "fluent-webhooks"]))?;
    let program = target().join("debug/fluent-webhooks");
    crate::run(Command::new(program).arg("demo").args(args).current_dir(root()))
}
