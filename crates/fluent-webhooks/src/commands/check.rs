//! The command `check`: validation of the settings, and a description of what would run.

mod description;
mod files;

use std::path::Path;

use dispatch::Registry;
use dispatcher::{ProcessResources, RouteSelection};
use settings::{QueueSettings, Role, RouteSettings, Routes, Section, SettingsError, SettingsTree};
use verifier::KeyRing;

use self::description::{
    describe_gateway, describe_key, describe_queue, describe_reconcile, describe_routes, rates_held,
};
pub(crate) use self::files::wrong_files;

use crate::cli::CommonArgs;
use crate::commands::logins;
use crate::json::{CheckedSettings, RetiredKey};
use crate::output;

pub(crate) async fn run(
    common: &CommonArgs,
    partly: bool,
    online: bool,
    registry: &Registry,
) -> anyhow::Result<()> {
    let tree = valid_tree(&common.config, partly, registry).await?;
    let gateway = tree.gateway()?;
    let queue = tree.queue_to_deliver()?;
    let routes = if partly {
        tree.routes_of(registry)?
    } else {
        tree.routes(Some(registry))?
    };
    let reconcile = tree.reconcile(&routes)?;
    let small_file = small_file(&queue).into_iter().collect();
    let warnings = [
        gateway.proxies.warnings(),
        routes.warnings(),
        tree.match_warnings(&routes),
        tree.warnings()?,
        small_file,
        roles_of_no_route(&tree, &routes)?,
    ]
    .concat();
    if common.json {
        let logins = match online {
            true => Some(logins::try_each(&tree).await?),
            false => None,
        };
        output::json(&CheckedSettings {
            config: common.config.display().to_string(),
            valid: true,
            listen: gateway.listen.to_string(),
            path: gateway.path.clone(),
            accounts: gateway.account_names.clone(),
            retired_keys: retired_keys(&gateway.keys, &queue)
                .into_iter()
                .map(|(name, detail)| RetiredKey { name, detail })
                .collect(),
            routes: routes.0.iter().map(|route| route.name.clone()).collect(),
            reconciled: reconcile.map(|reconcile| reconcile.event_names),
            warnings,
            logins: logins.as_deref().map(logins::described),
        })?;
        return logins.as_deref().map_or(Ok(()), logins::ensure_accepted);
    }
    output::line(format!(
        "{} is valid. This would run:\n",
        common.config.display()
    ));
    describe_gateway(&gateway);
    for (name, what) in retired_keys(&gateway.keys, &queue) {
        output::line(format!("  retired key   {name}: {what}"));
    }
    describe_queue(&tree, &queue)?;
    describe_routes(&routes.0);
    if let Some(reconcile) = &reconcile {
        describe_reconcile(reconcile);
    }
    warnings
        .iter()
        .for_each(|warning| output::line(format!("warning: {warning}")));
    if online {
        logins::run(&tree).await
    } else {
        Ok(())
    }
}

/// The sections that `serve` reads.
pub(crate) fn sections(registry: &Registry, partly: bool) -> [Section<'_>; 9] {
    let routes = match partly {
        true => Section::RoutesKnownTo(registry),
        false => Section::RoutesOf(registry),
    };
    [
        Section::Gateway,
        Section::QueueToDeliver,
        Section::Spool,
        routes,
        Section::Apis,
        Section::Reconcile,
        Section::Operator,
        Section::Observability,
        Section::Listeners,
    ]
}

/// The settings, if everything in them is valid and what they name can be opened. The error has
/// every mistake that can be found.
pub(crate) async fn valid_tree(
    config: &Path,
    partly: bool,
    registry: &Registry,
) -> anyhow::Result<SettingsTree> {
    let settings = process::unchecked_tree(config)?;
    let tree = settings.unchecked();
    let mut found = tree.mistakes(&sections(registry, partly));
    // The files that the settings name must be there, too.
    found.extend(wrong_files(tree));
    // Without its logins, what a route asks Fluent can't be opened: that is said already.
    if let Ok(resources) = ProcessResources::by(tree) {
        let opening = async |routes: Routes| {
            let is_ours =
                |route: &&RouteSettings| registry.kinds().any(|kind| kind == route.dispatcher);
            let ours = Routes(routes.0.iter().filter(is_ours).cloned().collect());
            let everything = RouteSelection::everything();
            let folder = tree.folder();
            let shared = &resources.shared;
            dispatcher::open_dispatchers(&ours, &everything, &folder, shared, registry).await
        };
        if let Err(error) = opening(tree.readable_routes(registry)).await {
            let error = dispatcher::located(tree, error).downcast::<SettingsError>()?;
            found.extend(error.into_each());
        }
        // What is wrong in a table hides what opening it would show.
        if let Err(error) = opening(tree.mended_routes(registry)).await {
            found.extend(dispatcher::invalid_values(tree, &error));
        }
    }
    match SettingsError::of_all(found) {
        Some(error) => Err(error.into()),
        None => process::tree(config),
    }
}

/// The name of each key that is out of use, with the purpose that it still has.
fn retired_keys(keys: &KeyRing, queue: &QueueSettings) -> Vec<(String, String)> {
    let is_asked = matches!(queue, QueueSettings::JetStream(queue) if queue.reverify);
    let purpose = match is_asked {
        true => "admits nothing, and proves what is stored: keep it as long as that is",
        false => {
            "admits nothing, and nothing else asks for it: what this queue keeps is not verified again"
        }
    };
    keys.retired()
        .map(|(name, key)| {
            (
                name.to_string(),
                format!("{}; {purpose}", describe_key(key)),
            )
        })
        .collect()
}

/// Warnings about callers that may take the events of a route that these settings do not have.
fn roles_of_no_route(tree: &SettingsTree, routes: &Routes) -> anyhow::Result<Vec<String>> {
    let Some(operator) = tree.operator()? else {
        return Ok(Vec::new());
    };
    let tokens = operator.tokens.iter().map(|it| (&it.name, &it.roles));
    let certificates = operator.certificates.iter();
    let callers = tokens.chain(certificates.map(|it| (&it.name, &it.roles)));
    let is_known = |name: &str| routes.0.iter().any(|route| route.name == name);
    let found = callers.flat_map(|(caller, roles)| {
        roles.iter().filter_map(move |role| match role {
            Role::Consume(route) if !is_known(route) => Some(format!(
                "fluent-connect.operator: `{caller}` has the role `consume:{route}`, and no route has this name"
            )),
            _ => None,
        })
    });
    Ok(found.collect())
}

/// A rate below one event a second is less than most shops have.
const FEW: f64 = 1.0;

fn small_file(queue: &QueueSettings) -> Option<String> {
    let QueueSettings::Embedded(queue) = queue else {
        return None;
    };
    let [_, least] = rates_held(queue);
    (least < FEW).then(|| {
        format!(
            "fluent-connect.queue.retention.bytes: beyond {least:.1} events a second, day and night, the ids of what Fluent may send again take the room of the events themselves; give it more"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The described keys that are out of use, in settings with this queue.
    fn retired(queue: &str) -> Vec<(String, String)> {
        let folder = tempfile::tempdir().unwrap();
        let [old, new] = [(); 2].map(|()| {
            simulator::KeyPair::generate(1024)
                .unwrap()
                .public_base64()
                .unwrap()
        });
        let text = format!(
            "fluent-connect: {{ queue: {queue} }}\nfluentcommerce: {{ fluent-webhook-keys: {{ sydney_sandbox: \
             [{{ key: {old:?}, retired: true }}, {{ key: {new:?} }}] }} }}\n"
        );
        let path = folder.path().join("application.yml");
        std::fs::write(&path, text).unwrap();
        let tree = SettingsTree::load(&path, []).unwrap();
        retired_keys(&tree.keys().unwrap(), &tree.queue().unwrap())
    }

    /// The lines of what is wrong with one route to an HTTP endpoint.
    async fn wrong_with(http: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let key = simulator::KeyPair::generate(1024)
            .unwrap()
            .public_base64()
            .unwrap();
        let text = format!(
            "fluent-connect:\n  accounts: [{{ name: ACME, region: sydney, environment: sandbox }}]\n  queue: {{}}\n  \
             routes: [{{ name: r, match: {{}}, dispatcher: http, http: {http} }}]\n\
             fluentcommerce: {{ fluent-webhook-keys: {{ sydney_sandbox: {key:?} }} }}\n"
        );
        let path = folder.path().join("application.yml");
        std::fs::write(&path, text).unwrap();
        let registry = Registry::new().with::<dispatch_http::HttpDispatcher>();
        match valid_tree(&path, false, &registry).await {
            Ok(_) => Vec::new(),
            Err(error) => {
                let errors = error.downcast::<SettingsError>().unwrap().into_each();
                errors.iter().map(ToString::to_string).collect()
            }
        }
    }

    #[tokio::test]
    async fn each_mistake_of_one_dispatcher_is_found_in_one_run() {
        let well = "url: \"http://127.0.0.1:9/\"";
        assert_eq!(wrong_with(&format!("{{ {well} }}")).await, [""; 0]);
        let nowhere = "url: nowhere";
        for (http, expected) in [
            // What only opening shows.
            (
                format!(
                    "{{ {well}, headers: {{ host: a, x-b: \"{{{{ event.\", x-c: {{ file: absent }} }} }}"
                ),
                &["headers: `host`", "x-b", "absent"][..],
            ),
            (
                format!(
                    "{{ {well}, template: {{ file: gone.json }}, auth: {{ bearer: {{ file: absent }} }} }}"
                ),
                &["gone.json", "absent"],
            ),
            // What reading the table shows, beside it.
            (
                format!("{{ {nowhere}, timeout: never, headers: {{ host: a }} }}"),
                &["http.url", "http.timeout", "headers: `host`"],
            ),
            // Nothing that is only a consequence.
            (
                "{ url: \"https://a.example/\", tls: { certificate: 7, key: k.pem } }".to_owned(),
                &["http.tls.certificate"],
            ),
        ] {
            let found = wrong_with(&http).await;
            assert_eq!(found.len(), expected.len(), "{http}: {found:#?}");
            for part in expected {
                assert!(
                    found.iter().any(|line| line.contains(part)),
                    "{part} of {http}: {found:#?}"
                );
            }
        }
    }

    #[test]
    fn a_role_for_a_route_that_is_not_there_is_a_warning() {
        let text = "fluent-connect:
  operator:
    grpc: 127.0.0.1:1
    tokens: [{ name: a, file: f, roles: [read, \"consume:there\", \"consume:gone\"] }]
  routes: [{ name: there, match: {}, dispatcher: log }]
";
        let tree = SettingsTree::parse(Path::new("t.yml"), text, []).unwrap();
        let found = roles_of_no_route(&tree, &tree.routes(None).unwrap()).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("`consume:gone`"), "{found:?}");
    }

    #[test]
    fn a_retired_key_is_named_with_what_it_is_still_for() {
        let servers = "kind: jetstream, servers: [\"nats://127.0.0.1:4222\"]";
        let asked = retired(&format!("{{ {servers} }}"));
        assert_eq!(asked.len(), 1, "{asked:?}");
        assert_eq!(asked[0].0, "sydney_sandbox");
        assert!(asked[0].1.contains("proves what is stored"), "{asked:?}");
        for queue in [
            &*format!("{{ {servers}, reverify: false }}"),
            "{ path: queue.db }",
        ] {
            let found = retired(queue);
            assert!(found[0].1.contains("nothing else asks for it"), "{found:?}");
        }
    }
}
