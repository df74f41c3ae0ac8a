//! Lists as files: CSV for tables, JSON Lines for programs. Bodies are in none of them.

use std::pin::Pin;
use std::time::Duration;

use proto::v1;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{deliveries, events, letters};
use crate::reply::{Download, PageError, Reply};
use crate::router::Visit;
use crate::text::shown;

/// Most rows of a file.
const MAX_ROWS: usize = 10_000;

/// Rows that are asked for at once.
const TOGETHER: u32 = 1000;

/// Longest time for reading rows. A file that ends earlier says so in its name.
const READ_WITHIN: Duration = Duration::from_secs(20);

/// One row: its columns under the names that commands print with `--json`.
type Record = Vec<(&'static str, Value)>;

/// What was read.
#[derive(Debug, Default)]
struct Rows {
    rows: Vec<Record>,
    /// There is more, which the file does not have.
    is_cut: bool,
}

/// The file of this name: a list, and a format.
pub(crate) async fn file(visit: Visit, name: &str) -> Result<Reply, PageError> {
    let unknown = || PageError::not_found("There is no such list, or not in this format.");
    let (list, format) = name.rsplit_once('.').ok_or_else(unknown)?;
    let (kind, write): (_, fn(&[Record]) -> String) = match format {
        "csv" => ("text/csv; charset=utf-8", csv),
        "jsonl" => ("application/jsonl; charset=utf-8", json_lines),
        _ => return Err(unknown()),
    };
    let rows = match list {
        "deliveries" => attempts(&visit).await?,
        "events" => accepted(&visit).await?,
        "dead-letters" => dead_letters(&visit, letters::View::Dead).await?,
        "unrouted" => dead_letters(&visit, letters::View::Unrouted).await?,
        "quarantine" => quarantined(&visit).await?,
        "refused" => refused(&visit).await?,
        "audit" => audit(&visit).await?,
        _ => return Err(unknown()),
    };
    let extent = match rows.is_cut {
        true => format!("-first-{}", rows.rows.len()),
        false => String::new(),
    };
    Ok(Reply::File(Download {
        name: format!("{list}{extent}.{format}"),
        kind,
        text: write(&rows.rows),
    }))
}

/// A page that is asked for by its token: what is on it, and the token of the next.
type PageFuture<T> = Pin<Box<dyn Future<Output = Result<(Vec<T>, String), PageError>> + Send>>;

/// Reads page after page, until there are no more, there are enough, or it takes too long.
async fn read<T>(
    page: impl Fn(String) -> PageFuture<T>,
    record: impl Fn(&T) -> Record,
) -> Result<Rows, PageError> {
    let deadline = Instant::now() + READ_WITHIN;
    let mut rows = Rows::default();
    let mut token = String::new();
    loop {
        let (found, next) = page(token).await?;
        rows.rows.extend(found.iter().map(&record));
        rows.is_cut = !next.is_empty() || rows.rows.len() > MAX_ROWS;
        rows.rows.truncate(MAX_ROWS);
        if next.is_empty() || rows.rows.len() >= MAX_ROWS || Instant::now() >= deadline {
            return Ok(rows);
        }
        token = next;
    }
}

async fn attempts(visit: &Visit) -> Result<Rows, PageError> {
    let filter = deliveries::filter_of(visit)?;
    let api = visit.api.clone();
    let page = |page_token| -> PageFuture<_> {
        let mut api = api.clone();
        let request = v1::ListDeliveriesRequest {
            filter: Some(filter.clone()),
            page_size: TOGETHER,
            page_token,
        };
        Box::pin(async move {
            let page = api.list_deliveries(request).await?.into_inner();
            Ok((page.attempts, page.next_page_token))
        })
    };
    read(page, |it: &v1::Attempt| {
        let length = it.duration.as_ref().and_then(grpc::duration_of);
        vec![
            ("startedAt", time(it.started_at.as_ref())),
            ("eventId", json!(it.event_id)),
            ("event", json!(it.event)),
            ("account", json!(it.account)),
            ("entity", json!(it.entity)),
            ("route", json!(it.route)),
            ("redrive", json!(it.redrive)),
            ("attempt", json!(it.attempt)),
            ("outcome", json!(it.outcome)),
            ("status", json!(it.status)),
            (
                "durationSeconds",
                json!(length.map(|length| length.as_secs_f64())),
            ),
            ("detail", json!(it.detail)),
        ]
    })
    .await
}

async fn accepted(visit: &Visit) -> Result<Rows, PageError> {
    let filter = events::filter_of(visit)?;
    let api = visit.api.clone();
    let page = |page_token| -> PageFuture<_> {
        let mut api = api.clone();
        let request = v1::ListEventsRequest {
            filter: Some(filter.clone()),
            page_size: TOGETHER,
            page_token,
            after: 0,
        };
        Box::pin(async move {
            let page = api.list_events(request).await?.into_inner();
            Ok((page.events, page.next_page_token))
        })
    };
    read(page, |it: &v1::AcceptedEvent| {
        vec![
            ("receivedAt", time(it.received_at.as_ref())),
            ("eventId", json!(it.id)),
            ("event", json!(it.event)),
            ("account", json!(it.account)),
            ("entity", json!(it.entity)),
            ("origin", json!(it.origin)),
        ]
    })
    .await
}

async fn dead_letters(visit: &Visit, view: letters::View) -> Result<Rows, PageError> {
    let filter = letters::filter_of(view, visit)?;
    let api = visit.api.clone();
    let page = |page_token| -> PageFuture<_> {
        let mut api = api.clone();
        let request = v1::ListDeadLettersRequest {
            filter: Some(filter.clone()),
            page_size: TOGETHER,
            page_token,
        };
        Box::pin(async move {
            let page = api.list_dead_letters(request).await?.into_inner();
            Ok((page.dead_letters, page.next_page_token))
        })
    };
    read(page, |it: &v1::DeadLetter| {
        let event = it.event.clone().unwrap_or_default();
        vec![
            ("id", json!(it.id)),
            ("createdAt", time(it.created_at.as_ref())),
            ("route", json!(it.route)),
            ("reason", json!(it.reason)),
            ("attempts", json!(it.attempts)),
            ("detail", json!(it.detail)),
            ("eventId", json!(event.id)),
            ("event", json!(event.name)),
            ("account", json!(event.account)),
            ("entity", json!(letters::entity_of(&event))),
        ]
    })
    .await
}

async fn quarantined(visit: &Visit) -> Result<Rows, PageError> {
    let api = visit.api.clone();
    let page = |page_token| -> PageFuture<_> {
        let mut api = api.clone();
        let request = v1::ListQuarantinedRequest {
            page_size: TOGETHER,
            page_token,
            reference: String::new(),
        };
        Box::pin(async move {
            let page = api.list_quarantined(request).await?.into_inner();
            Ok((page.webhooks, page.next_page_token))
        })
    };
    read(page, |it: &v1::QuarantinedWebhook| {
        vec![
            ("id", json!(it.id)),
            ("receivedAt", time(it.received_at.as_ref())),
            ("reason", json!(it.reason)),
            ("key", json!(it.key)),
            ("algorithm", json!(it.algorithm)),
            ("bytes", json!(it.bytes)),
        ]
    })
    .await
}

async fn refused(visit: &Visit) -> Result<Rows, PageError> {
    let api = visit.api.clone();
    let page = |page_token| -> PageFuture<_> {
        let mut api = api.clone();
        let request = v1::ListRefusedRequest {
            page_size: TOGETHER,
            page_token,
            reference: String::new(),
        };
        Box::pin(async move {
            let page = api.list_refused(request).await?.into_inner();
            Ok((page.webhooks, page.next_page_token))
        })
    };
    read(page, |it: &v1::RefusedWebhook| {
        vec![
            ("id", json!(it.id)),
            ("receivedAt", time(it.received_at.as_ref())),
            ("reason", json!(it.reason)),
            ("account", json!(it.account)),
            ("bytes", json!(it.bytes)),
        ]
    })
    .await
}

async fn audit(visit: &Visit) -> Result<Rows, PageError> {
    let api = visit.api.clone();
    let page = |_| -> PageFuture<_> {
        let mut api = api.clone();
        let request = v1::ListAuditRequest {
            page_size: TOGETHER,
        };
        Box::pin(async move {
            let entries = api.list_audit(request).await?.into_inner().entries;
            Ok((entries, String::new()))
        })
    };
    let mut rows = read(page, |it: &v1::AuditEntry| {
        vec![
            ("occurredAt", time(it.occurred_at.as_ref())),
            ("actor", json!(it.actor)),
            ("action", json!(it.action)),
            ("outcome", json!(it.outcome)),
            ("affected", json!(it.affected)),
            ("failed", json!(it.failed)),
            ("request", json!(it.request)),
        ]
    })
    .await?;
    // The log is asked for its newest entries, and does not say whether there are more.
    rows.is_cut = rows.rows.len() >= TOGETHER as usize;
    Ok(rows)
}

fn time(at: Option<&proto::Timestamp>) -> Value {
    let at = at.and_then(grpc::timestamp_of);
    json!(at.map(|at| format!("{at:.3}")))
}

fn json_lines(rows: &[Record]) -> String {
    let line = |row: &Record| {
        let fields = row.iter();
        let object: Map<_, _> = fields
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect();
        format!("{}\n", Value::Object(object))
    };
    rows.iter().map(line).collect()
}

fn csv(rows: &[Record]) -> String {
    let Some(first) = rows.first() else {
        return String::new();
    };
    let head: Vec<&str> = first.iter().map(|(name, _)| *name).collect();
    let line = |row: &Record| {
        let cells: Vec<_> = row.iter().map(|(_, value)| csv_cell(value)).collect();
        format!("{}\r\n", cells.join(","))
    };
    let lines: String = rows.iter().map(line).collect();
    format!("{}\r\n{lines}", head.join(","))
}

fn csv_cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => format!("\"{}\"", inert(text).replace('"', "\"\"")),
        number => number.to_string(),
    }
}

/// The text as no spreadsheet takes it for a formula, and no terminal obeys it.
fn inert(text: &str) -> String {
    let is_formula = text
        .trim_start()
        .starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠']);
    match is_formula || text.starts_with(['\t', '\r', '\n']) {
        true => format!("'{}", shown(text)),
        false => shown(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_text_whatever_is_in_it() {
        let cell = |text: &str| csv_cell(&json!(text));
        assert_eq!(cell("a,b \"c\""), "\"a,b \"\"c\"\"\"");
        for formula in [
            "=1+1", "+1", "-1", "@SUM(A1)", " =1", "\t=1", "\r=1", "\n=1", "＝1",
        ] {
            assert!(cell(formula).starts_with("\"'"), "{formula:?}");
        }
        assert!(!cell("a\nb\u{1b}").contains(['\n', '\u{1b}']));
        assert_eq!(csv_cell(&json!(7)), "7");
        assert_eq!(csv_cell(&Value::Null), "");
    }

    #[test]
    fn a_file_has_a_line_for_each_row() {
        let rows = [
            vec![("id", json!(1)), ("why", json!("a\nb"))],
            vec![("id", json!(2)), ("why", Value::Null)],
        ];
        assert_eq!(csv(&rows), "id,why\r\n1,\"a[U+000A]b\"\r\n2,\r\n");
        let lines = json_lines(&rows);
        let lines: Vec<&str> = lines.lines().collect();
        assert_eq!(
            lines,
            [r#"{"id":1,"why":"a\nb"}"#, r#"{"id":2,"why":null}"#]
        );
        assert_eq!(csv(&[]), "");
    }

    #[tokio::test]
    async fn so_many_rows_are_read_and_a_file_says_if_there_are_more() {
        let pages = |all: usize| {
            move |token: String| -> PageFuture<()> {
                let told: usize = token.parse().unwrap_or(0);
                let more = (all - told).min(TOGETHER as usize);
                let next = Some(told + more).filter(|told| *told < all);
                let next = next.map(|told| told.to_string()).unwrap_or_default();
                Box::pin(async move { Ok((vec![(); more], next)) })
            }
        };
        for (all, read_rows, is_cut) in [
            (0, 0, false),
            (2500, 2500, false),
            (MAX_ROWS, MAX_ROWS, false),
            (MAX_ROWS + 1, MAX_ROWS, true),
        ] {
            let rows = read(pages(all), |()| Record::new()).await.unwrap();
            assert_eq!((rows.rows.len(), rows.is_cut), (read_rows, is_cut), "{all}");
        }
    }
}
