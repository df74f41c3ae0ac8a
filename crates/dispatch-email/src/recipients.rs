//! Recipients of a mail: the settings say how many, and an event fills each in.

use dispatch::{BoxError, DispatchError};
use dispatch_kit::{Template, View};
use lettre::message::{Mailbox, Mailboxes};

use crate::MailError;
use crate::settings::ToSettings;

/// Most recipients of a mail.
pub(crate) const MOST: usize = 10;

/// One template for each recipient. A template makes one address: with a comma in an event's
/// field, its author must not be able to add recipients.
#[derive(Debug)]
pub(crate) struct Recipients(Vec<Template>);

impl Recipients {
    pub(crate) fn open(to: ToSettings) -> Result<Self, BoxError> {
        let sources = match to {
            ToSettings::One(text) => listed(&text),
            ToSettings::Several(texts) => texts,
        };
        if !(1..=MOST).contains(&sources.len()) {
            return Err(format!("to: expected 1 to {MOST} addresses").into());
        }
        let parse = |source: String| {
            ensure_address(&source)?;
            Template::parse(source, "text/plain")
                .map_err(|error| BoxError::from(format!("to: {error}")))
        };
        sources
            .into_iter()
            .map(parse)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    pub(crate) fn fill(&self, view: &View) -> Result<Vec<Mailbox>, DispatchError> {
        self.0
            .iter()
            .map(|template| one_address(&template.fill(view)?))
            .collect()
    }
}

/// Refuses a text that is no address, and that no event fills in: every mail would be a dead
/// letter.
fn ensure_address(text: &str) -> Result<(), BoxError> {
    let is_filled_in = ["{{", "{%", "{#"].iter().any(|begin| text.contains(begin));
    match is_filled_in || one_address(text).is_ok() {
        true => Ok(()),
        false => Err("to: expected addresses, such as shop@example.com or \"Shop\" <shop@example.com>, with a comma between two".into()),
    }
}

fn one_address(text: &str) -> Result<Mailbox, DispatchError> {
    let unmade = || DispatchError::permanent("writing the mail", MailError::To);
    let mut made = text
        .trim()
        .parse::<Mailboxes>()
        .map_err(|_| unmade())?
        .into_iter();
    match (made.next(), made.next()) {
        (Some(address), None) => Ok(address),
        _ => Err(unmade()),
    }
}

/// Splits a text into templates at its commas. Commas in an expression or in a quoted name do not
/// count, and a text with blocks, which may span commas, is not split.
fn listed(text: &str) -> Vec<String> {
    if text.contains("{%") {
        return vec![text.to_owned()];
    }
    let mut parts = vec![String::new()];
    let mut depth = 0_usize;
    let mut is_quoted = false;
    for letter in text.chars() {
        match letter {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            '"' if depth == 0 => is_quoted = !is_quoted,
            ',' if depth == 0 && !is_quoted => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(part) = parts.last_mut() {
            part.push(letter);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_part_templates_and_nothing_within_them() {
        let parts = |text| {
            listed(text)
                .iter()
                .map(|part| part.trim().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            parts("{{ event.a }}, Copy <c@x.y>"),
            ["{{ event.a }}", "Copy <c@x.y>"]
        );
        assert_eq!(parts("\"Doe, Jane\" <j@x.y>"), ["\"Doe, Jane\" <j@x.y>"]);
        assert_eq!(
            parts("{{ event.a | replace(',', '') }}"),
            ["{{ event.a | replace(',', '') }}"]
        );
        assert_eq!(parts("{% if a %}a@x.y, b@x.y{% endif %}").len(), 1);
    }

    #[test]
    fn what_no_event_fills_in_is_an_address() {
        let open = |to: &str| Recipients::open(ToSettings::One(to.to_owned())).map(drop);
        for good in [
            "a@x.y",
            "Shop <a@x.y>, \"Doe, Jane\" <j@x.y>",
            "{{ event.a }}, c@x.y",
            "Shop <{{ event.a }}>",
            "{% if event.a %}{{ event.a }}{% endif %}",
        ] {
            assert!(open(good).is_ok(), "{good}");
        }
        for bad in [
            "shop.example.com",
            "a@x.y b@x.y",
            "a@",
            "a@x.y,",
            "{{ event.a }}, shop",
        ] {
            let said = open(bad).unwrap_err().to_string();
            assert!(said.contains("such as shop@example.com"), "{bad}: {said}");
        }
    }
}
