//! Mistakes in the settings: exit 78, and a line that helps.

use std::fs;
use std::process::Command;

use e2e::deployment::{Deployment, Plan};

use crate::pipeline::Pipeline;

/// Changes settings that are valid, and sees that the change is refused with these words.
#[track_caller]
pub(crate) fn refuse(from: &str, to: &str, says: &[&str]) {
    let pipeline = Pipeline::prepare("    - { name: orders, match: {}, dispatcher: log }\n");
    let text = fs::read_to_string(pipeline.config()).unwrap();
    assert!(text.contains(from), "{from}");
    fs::write(pipeline.config(), text.replace(from, to)).unwrap();
    for command in ["serve", "check"] {
        let output = pipeline.command(&[command]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(said.lines().count() < 10, "few lines: {said}");
        for part in says {
            assert!(said.contains(part), "expected {part:?} in {said}");
        }
    }
}

#[test]
fn an_unknown_key_names_the_nearest_spelling_and_its_line() {
    refuse(
        "body-limit",
        "body-limt",
        &[
            "application.yml:6",
            "unknown key `body-limt`",
            "did you mean `body-limit`?",
        ],
    );
    refuse(
        "accounts:",
        "acounts:",
        &["application.yml:3", "did you mean `accounts`?"],
    );
    refuse(
        "match: {}",
        "match: { evnt: A }",
        &["application.yml:10", "did you mean `event`?"],
    );
    refuse(
        "dispatcher: log",
        "dispatcher: log, log: { lvl: 1 }",
        &["application.yml:10", "unknown key `lvl`"],
    );
}

#[test]
fn a_key_that_is_not_built_yet_is_refused_by_name() {
    refuse(
        "match: {}",
        "match: {}, order: entity",
        &["`order` is planned"],
    );
}

#[test]
fn a_mistake_in_an_expression_is_pointed_at() {
    let when = |text: &str| format!("match: {{ when: {text:?} }}");
    let misspelt = when("has(event.attributes.store) && evnt.name == 'E'");
    refuse(
        "match: {}",
        &misspelt,
        &[
            "application.yml:10",
            "nothing is called `evnt`",
            "line 1, column 32",
        ],
    );
    refuse(
        "match: {}",
        &when("event.name == "),
        &["application.yml:10", "column 15"],
    );
    refuse(
        "match: {}",
        &when("event.name.startswith('E')"),
        &["no function is called `startswith`"],
    );
}

#[test]
fn a_clusters_settings_are_read_as_strictly() {
    refuse(
        "queue: {",
        "queue: { kind: jetstream,",
        &["application.yml:7", "unknown key `path`"],
    );
    refuse(
        "queue: {",
        "queue: { kind: kafka,",
        &["expected `embedded` or `jetstream`"],
    );
    refuse(
        "health:",
        "spool: {}\n  health:",
        &["application.yml:8", "an embedded queue"],
    );
    refuse(
        "health:",
        "acknowledge: queue\n  health:",
        &["application.yml:8", "leaves no choice"],
    );
    // What was the path is the prefix here: the first mistake is named.
    let jet_stream = |rest: &str| format!("queue: {{ kind: jetstream, {rest}, inbox-prefix:");
    for (rest, says) in [
        ("servers: [host]", "expected a list of URLs"),
        ("servers: ['nats://user:word@host']", "without a password"),
        ("servers: ['nats://h:1'], replicas: 2", "expected 1, 3 or 5"),
        (
            "servers: ['nats://h:1'], user: x",
            "user and password together",
        ),
        ("servers: ['nats://h:1']", "expected letters, digits"),
    ] {
        refuse(
            "queue: { path:",
            &jet_stream(rest),
            &["application.yml:7", says],
        );
    }
}

#[test]
fn a_clusters_dispatcher_needs_the_keys_it_verifies_with() {
    const ROUTES: &str = "    - { name: all, match: {}, dispatcher: log }\n";
    let deployment = Deployment::prepare(Plan {
        servers: 1,
        gateways: 0,
        dispatchers: 1,
        ..Plan::new(ROUTES)
    });
    let path = deployment.folder.path().join("dispatcher-0.yml");
    let good = fs::read_to_string(&path).unwrap();
    let check = |text: &str| {
        fs::write(&path, text).unwrap();
        let mut dispatcher = Command::new(env!("CARGO_BIN_EXE_stage-dispatcher"));
        let output = dispatcher
            .args(["--check", "--config"])
            .arg(&path)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    assert_eq!(check(&good).0, Some(0));
    let (without_keys, _) = good.split_once("fluentcommerce:").unwrap();
    let (code, said) = check(without_keys);
    assert_eq!(code, Some(78));
    assert!(
        said.contains("fluent-webhook-keys") && said.contains("reverify: false"),
        "{said}"
    );
    let believing = without_keys.replace("kind: jetstream", "kind: jetstream\n    reverify: false");
    assert_eq!(
        check(&believing).0,
        Some(0),
        "who says so believes the streams"
    );
    let private = good.replace("seal.pub", "seal.key");
    let (code, said) = check(&private);
    assert_eq!(code, Some(78));
    assert!(
        said.contains("public-keys") && said.contains("PRIVATE key"),
        "{said}"
    );
}

#[test]
fn a_wrong_value_says_what_was_expected_and_not_what_was_found() {
    refuse("64KiB", "lots", &["body-limit", "expected a size"]);
    refuse(
        "64KiB",
        "64",
        &["expected a size such as 64KiB, found the number 64"],
    );
    refuse(
        "retailers: [34]",
        "retailers: true",
        &["application.yml:4", "retailers"],
    );
    refuse(
        "environment: sandbox",
        "environment: staging",
        &["application.yml:4", "sandbox"],
    );
    refuse(
        "dispatcher: log",
        "dispatcher: http, http: { url: 'ftp://x' }",
        &["http.url", "https://"],
    );
    refuse(
        "dispatcher: log",
        "dispatcher: http",
        &["http.url: this key is missing: expected a text such as https://"],
    );
    refuse(
        "fluent-connect:",
        "fluent-connect: [",
        &["application.yml:", "not YAML"],
    );
}

#[test]
fn nothing_is_ignored_or_widened_in_silence() {
    refuse(
        "\nfluentcommerce:",
        "\n---\nfluentcommerce:",
        &["a second document"],
    );
    refuse("retailers: [34]", "retailers: ", &["retailers"]);
    refuse(
        "body-limit: 64KiB",
        "signature-headers: { sha512: [] }",
        &["at least one header for each kind"],
    );
    refuse(
        "body-limit: 64KiB",
        "signature-headers: { md5: [Fluent-Signature] }",
        &["none of them twice"],
    );
    refuse(
        "dispatcher: log",
        "dispatcher: http, http: { url: 'http://169.254.169.254/' }",
        &["http.url", "never connected to"],
    );
}

#[test]
fn what_does_not_fit_together_is_refused() {
    refuse(
        "dispatcher: log",
        "dispatcher: lgo",
        &["no dispatcher is called `lgo`", "did you mean `log`?"],
    );
    let mistaken = "dispatcher: htpp, http: { url: 'https://x.example/' }";
    refuse(
        "dispatcher: log",
        mistaken,
        &["no dispatcher is called `htpp`", "did you mean `http`?"],
    );
    let twice = "    - { name: orders, match: {}, dispatcher: log }\nfluentcommerce:";
    refuse(
        "\nfluentcommerce:",
        twice,
        &["two routes are called `orders`"],
    );
    refuse(
        "region: sydney, environment: production",
        "region: dublin, environment: production",
        &["account ACME has no key", "dublin_production"],
    );
    refuse("name: orders", "name: Orders!", &["lowercase"]);
}

#[test]
fn the_environment_overrides_and_is_named_in_errors() {
    let mut pipeline = Pipeline::prepare("    - { name: orders, match: {}, dispatcher: log }\n");
    pipeline.set_environment(
        "FLUENT_CONNECT__ROUTES__0__NAME",
        std::path::Path::new("renamed"),
    );
    pipeline.run();
    assert!(
        pipeline
            .json(&["routes", "list"])
            .to_string()
            .contains("renamed")
    );
    for (name, value, says) in [
        ("FLUENT_CONNECT__WEBHOOK__LISTN", "x", "unknown key `listn`"),
        (
            "FLUENT_CONNECT__WEBHOOK__LISTEN",
            "nowhere",
            "environment variable FLUENT_CONNECT__WEBHOOK__LISTEN",
        ),
        (
            "FLUENT_CONNECT__ROUTES__7__NAME",
            "x",
            "`7` is not an index of a list of 1",
        ),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_pipeline"))
            .args(["check", "--config"])
            .arg(pipeline.config())
            .env(name, value)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(said.contains(says), "expected {says:?} in {said}");
    }
}

#[test]
fn a_file_that_is_not_there_says_how_to_get_one() {
    let output = crate::pipeline::command(std::path::Path::new("nowhere.yml"), &["check"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("fluent-webhooks init"));
}

#[test]
fn what_a_table_names_must_be_there_and_another_binarys_routes_are_its_own() {
    let routes = "    - { name: a, match: {}, dispatcher: http, http: { url: \"http://x.example.com\", template: { file: gone.json } } }\n";
    let pipeline = Pipeline::prepare(routes);
    let output = pipeline.command(&["check"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(
        said.contains("application.yml:") && said.contains("gone.json"),
        "{said}"
    );

    let pipeline =
        Pipeline::prepare("    - { name: a, match: {}, dispatcher: email, email: { to: x } }\n");
    let output = pipeline.command(&["check"]);
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    let output = pipeline.command(&["check", "--partly"]);
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("email"));
}

#[test]
fn a_file_that_nobody_wrote_by_hand_is_refused_with_its_line_and_quickly() {
    let nested: String = (0..3000)
        .map(|depth| format!("{}k:\n", " ".repeat(depth)))
        .collect();
    let flow = format!("a: {}1{}", "[".repeat(5000), "]".repeat(5000));
    let mixed = format!("{}{}", "- ".repeat(60), "[".repeat(60));
    let large = format!("fluent-connect:\n{}", "  # filled up\n".repeat(4 << 20));
    for (text, says) in [
        ("- ".repeat(20_000), "application.yml:1"),
        (nested, "application.yml:"),
        (flow, "application.yml:1"),
        (mixed, "application.yml:1"),
        (large, "1 MiB"),
    ] {
        let pipeline = Pipeline::prepare("    []\n");
        fs::write(pipeline.config(), text).unwrap();
        let began = std::time::Instant::now();
        let output = pipeline.command(&["check"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "{output:?}");
        assert!(said.contains(says) && said.len() < 500, "{said}");
        assert!(began.elapsed().as_secs() < 30, "{:?}", began.elapsed());
    }
}

/// A name in the settings, a mistake there, and words about it.
fn line_of(text: &str, part: &str) -> String {
    let found = text.lines().position(|line| line.contains(part));
    format!("application.yml:{}: ", found.unwrap() + 1)
}

#[test]
fn all_mistakes_are_named_in_one_run_each_at_its_line() {
    let pipeline = Pipeline::prepare("    []\n");
    let text = fs::read_to_string(pipeline.config()).unwrap();
    let routes = r#"
    - name: typo
      match: {}
      dispatcher: log
      concurency: 3
    - name: secret
      match: {}
      dispatcher: http
      http:
        url: https://example.com/
        timeout: 10
        auth:
          bearer: { file: gone.token }
    - name: fields
      match:
        when: event.atributes.store == "x"
      dispatcher: http
      http:
        url: https://example.com/
        headers:
          x-good: "{{ event.entityRef }}"
          x-ref: "{{ event.entityReff }}"
      on-success:
        dispatcher: http
        http:
          url: https://example.com/
          template: { file: missing.json }
    - name: rates
      match: {}
      dispatcher: log
      rate: 50/s
    - name: secret-alone
      match: {}
      dispatcher: http
      http:
        url: https://example.com/
        auth:
          bearer: { file: gone-too.token }
    - name: header-alone
      match: {}
      dispatcher: http
      http:
        url: https://example.com/
        headers:
          x-order: "{{ event.entityRefs }}"
    - name: hook-alone
      match: {}
      dispatcher: log
      on-dead-letter:
        dispatcher: http
        http:
          url: https://example.com/
          template:
            file: absent.json
"#;
    let text = text.replace("    []\n", routes);
    let text = text
        .replace("body-limit", "body-limt")
        .replace("health:", "telemetry: { traces: { sample: 1 } }\n  health:");
    fs::write(pipeline.config(), &text).unwrap();
    for command in ["check", "serve"] {
        let output = pipeline.command(&[command]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "{said}");
        for (part, words) in [
            ("body-limt", "did you mean `body-limit`?"),
            ("sample: 1", "`sample` is called `sample-ratio` now"),
            ("concurency", "did you mean `concurrency`?"),
            (
                "timeout: 10",
                "expected a duration such as 10s, found the number 10",
            ),
            ("when:", "did you mean `event.attributes`?"),
            (
                "rate: 50/s",
                "expected a table such as { events: 50, per: 1s }, found a text",
            ),
            // What opening shows, beside what is wrong in the table and without it.
            ("gone.token", "gone.token"),
            ("entityReff", "did you mean `event.entityRef`?"),
            ("missing.json", "missing.json"),
            ("gone-too.token", "gone-too.token"),
            ("entityRefs", "did you mean `event.entityRef`?"),
            ("absent.json", "absent.json"),
        ] {
            let place = line_of(&text, part);
            let is_told = said
                .lines()
                .any(|line| line.contains(&place) && line.contains(words));
            assert!(is_told, "{place} {words} in {said}");
        }
        assert!(said.contains("12 mistakes in the settings"), "{said}");
    }
}
