//! The command that gives what a page shows.

/// A command of the product, to be copied into a shell. `None` if it can't be written in one
/// line that shows what it is.
pub(crate) fn command(words: &[&str], options: &[(&str, &str)]) -> Option<String> {
    let mut line = vec!["fluent-webhooks".to_owned()];
    for word in words {
        line.push(quoted(word)?);
    }
    for (name, value) in options.iter().filter(|(_, value)| !value.is_empty()) {
        // Joined, since a value may begin as an option does.
        line.push(format!("{name}={}", quoted(value)?));
    }
    Some(line.join(" "))
}

fn quoted(text: &str) -> Option<String> {
    if text.chars().any(telemetry::is_unsafe) {
        return None;
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@%+,".contains(&byte);
    match !text.is_empty() && text.bytes().all(is_plain) {
        true => Some(text.to_owned()),
        false => Some(format!("'{}'", text.replace('\'', r"'\''"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_each_value_as_one_word() {
        let made = command(&["events", "show", "HD_1"], &[("--route", "")]);
        assert_eq!(made.unwrap(), "fluent-webhooks events show HD_1");
        let odd = "a'; rm -rf $HOME `x` \"y\" #";
        let made = command(&["deliveries"], &[("--ref", odd)]).unwrap();
        let script = made.replace("fluent-webhooks", "printf '%s\\n'");
        let output = std::process::Command::new("sh")
            .args(["-c", &script])
            .output();
        let said = String::from_utf8(output.unwrap().stdout).unwrap();
        assert_eq!(said, format!("deliveries\n--ref={odd}\n"));
        assert_eq!(command(&["events", "show", "a\u{202e}b"], &[]), None);
    }
}
