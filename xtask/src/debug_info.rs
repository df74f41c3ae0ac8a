//! Debug information apart from its program, so that what is deployed is small, and a trace of a
//! panic can still be read.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

/// Moves a program's debug information and symbols into `<program>.debug` beside it. Where the two
/// are in one folder, the program's own traces of panics and debuggers find it.
pub(crate) fn separate(program: &Path) -> anyhow::Result<PathBuf> {
    let folder = program.parent().context("a program is in a folder")?;
    let name = program.file_name().context("a program has a name")?;
    let mut apart = name.to_owned();
    apart.push(".debug");
    let link = format!("--add-gnu-debuglink={}", apart.display());
    objcopy(
        Command::new("objcopy")
            .arg("--only-keep-debug")
            .args([name, &apart]),
        folder,
    )?;
    objcopy(
        Command::new("objcopy")
            .args(["--strip-all", &link])
            .arg(name),
        folder,
    )?;
    Ok(folder.join(apart))
}

/// Runs objcopy in a folder: the link has the name of a file, and no folder.
fn objcopy(command: &mut Command, folder: &Path) -> anyhow::Result<()> {
    crate::run(command.current_dir(folder))
        .context("objcopy, of binutils, which comes with the C compiler")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sections(program: &Path) -> String {
        let output = Command::new("objdump")
            .arg("--section-headers")
            .arg(program)
            .output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    }

    #[test]
    fn a_program_is_stripped_and_its_traces_still_have_lines() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("fails.rs");
        std::fs::write(&source, "fn main() {\n    panic!(\"here\")\n}\n").unwrap();
        let program = folder.path().join("fails");
        let mut rustc = Command::new("rustc");
        rustc
            .args(["-C", "debuginfo=line-tables-only", "-o"])
            .arg(&program)
            .arg(&source);
        crate::run(&mut rustc).unwrap();
        assert!(sections(&program).contains(".debug_line"));

        let apart = separate(&program).unwrap();
        assert!(!sections(&program).contains(".debug_line"));
        assert!(sections(&program).contains(".gnu_debuglink"));
        assert!(sections(&apart).contains(".debug_line"));
        let trace = || {
            let output = Command::new(&program)
                .env("RUST_BACKTRACE", "full")
                .output()
                .unwrap();
            String::from_utf8(output.stderr).unwrap()
        };
        assert!(trace().contains("fails::main"), "{}", trace());
        // Of the program, and not of the message, which has its line without any help.
        assert!(trace().matches("fails.rs:2").count() > 1, "{}", trace());
        std::fs::remove_file(&apart).unwrap();
        assert!(!trace().contains("fails::main"));
    }
}
