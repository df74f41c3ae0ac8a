//! The fields of an event that are known, so that a misspelt one is found before an event comes.

/// Fields that Fluent's events have, and those that this product adds. An event may have
/// others: they are kept and passed on.
pub const KNOWN_FIELDS: [&str; 23] = [
    "accountId",
    "attributes",
    "entityId",
    "entityRef",
    "entityStatus",
    "entitySubtype",
    "entityType",
    "environment",
    "errorLogs",
    "flexType",
    "flexVersion",
    "id",
    "meta",
    "name",
    "origin",
    "retailerId",
    "rootEntityId",
    "rootEntityRef",
    "rootEntityType",
    "scheduledOn",
    "source",
    "trailLogs",
    "type",
];

/// Returns the known field of which `name` is a misspelling: at most a third of its letters
/// differ, or only their case. `None` for a known field, and for one that is like none.
///
/// ```
/// use fluent_event_model::misspelt_field;
///
/// assert_eq!(misspelt_field("atributes"), Some("attributes"));
/// assert_eq!(misspelt_field("entityreff"), Some("entityRef"));
/// assert_eq!(misspelt_field("entityRef"), None);
/// assert_eq!(misspelt_field("lines"), None);
/// ```
pub fn misspelt_field(name: &str) -> Option<&'static str> {
    nearest_name(name, KNOWN_FIELDS.iter().copied())
}

/// Returns the one of `known` of which `name` is a misspelling, by the rule of
/// [`misspelt_field`].
///
/// ```
/// use fluent_event_model::nearest_name;
///
/// assert_eq!(nearest_name("evnt", ["event", "enriched"].into_iter()), Some("event"));
/// assert_eq!(nearest_name("event", ["event", "enriched"].into_iter()), None);
/// ```
pub fn nearest_name<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let letters: Vec<char> = name.to_lowercase().chars().collect();
    let most = (letters.len() / 3).max(1);
    let mut nearest: Option<(usize, &str)> = None;
    for candidate in known {
        if candidate == name {
            return None;
        }
        // Longer names are of somebody else, and would cost time.
        if candidate.len().abs_diff(name.len()) > most {
            continue;
        }
        let apart = distance(
            &letters,
            &candidate.to_lowercase().chars().collect::<Vec<_>>(),
        );
        if apart <= most && nearest.is_none_or(|(least, _)| apart < least) {
            nearest = Some((apart, candidate));
        }
    }
    nearest.map(|(_, name)| name)
}

/// The number of letters to insert, leave out, replace or swap with the next.
fn distance(one: &[char], other: &[char]) -> usize {
    let mut rows = [
        Vec::new(),
        Vec::new(),
        (0..=other.len()).collect::<Vec<_>>(),
    ];
    for (at, letter) in one.iter().enumerate() {
        rows.rotate_left(1);
        let mut row = vec![at + 1];
        for (index, found) in other.iter().enumerate() {
            let replaced = rows[1][index] + usize::from(letter != found);
            let mut least = replaced.min(rows[1][index + 1] + 1).min(row[index] + 1);
            let is_swapped =
                at > 0 && index > 0 && one[at - 1] == *found && other[index - 1] == *letter;
            if is_swapped {
                least = least.min(rows[0][index - 1] + 1);
            }
            row.push(least);
        }
        rows[2] = row;
    }
    rows[2][other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_is_like_a_known_one_is_a_misspelling_of_it() {
        for (name, meant) in [
            ("atributes", "attributes"),
            ("attribtues", "attributes"),
            ("Attributes", "attributes"),
            ("entityreff", "entityRef"),
            ("entity_ref", "entityRef"),
            ("entityStaus", "entityStatus"),
            ("retailer", "retailerId"),
            ("acountId", "accountId"),
            ("nme", "name"),
            ("tpye", "type"),
            ("rootEntityReff", "rootEntityRef"),
        ] {
            assert_eq!(misspelt_field(name), Some(meant), "{name}");
        }
        for name in KNOWN_FIELDS {
            assert_eq!(misspelt_field(name), None, "{name}");
        }
        for own in [
            "lines",
            "sku",
            "x-extra",
            "quantity",
            "n",
            "few",
            "orderTotal",
            "",
        ] {
            assert_eq!(misspelt_field(own), None, "{own}");
        }
    }
}
