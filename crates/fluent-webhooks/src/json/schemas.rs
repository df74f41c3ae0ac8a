//! The schemas of what commands print, as they are in `docs/json`.

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use schemars::generate::SchemaSettings;
    use schemars::{JsonSchema, Schema};

    use crate::json::{
        AcceptedEvent, Attempt, AuditEntry, Backup, BulkResult, CheckedSettings, ClusterState,
        DeadLetter, DrainedSpool, EventBody, EventHistory, ExplainedWebhook, IndexState, Job,
        JobFailure, MadeCertificates, Process, QuarantinedWebhook, Reconciled, RejectedWebhook,
        Resumed, Retried, Route, RouteChange, SalvagedFile, SentTestEvent, Spool, SpoolState,
        Status, TestedRoute, VerifiedWebhook,
    };

    fn of<T: JsonSchema>() -> Schema {
        let settings = SchemaSettings::draft2020_12().for_serialize();
        settings.into_generator().into_root_schema_for::<T>()
    }

    /// Each output's file in `docs/json`, and its schema.
    fn all() -> Vec<(&'static str, Schema)> {
        vec![
            ("accepted-events", of::<Vec<AcceptedEvent>>()),
            ("attempt", of::<Attempt>()),
            ("attempts", of::<Vec<Attempt>>()),
            ("audit", of::<Vec<AuditEntry>>()),
            ("backup", of::<Backup>()),
            ("bulk-result", of::<BulkResult>()),
            ("checked-settings", of::<CheckedSettings>()),
            ("cluster", of::<ClusterState>()),
            ("dead-letter", of::<DeadLetter>()),
            ("dead-letters", of::<Vec<DeadLetter>>()),
            ("drained-spool", of::<DrainedSpool>()),
            ("event-body", of::<EventBody>()),
            ("events", of::<Vec<EventHistory>>()),
            ("explained-webhook", of::<ExplainedWebhook>()),
            ("index", of::<IndexState>()),
            ("job", of::<Job>()),
            ("job-failures", of::<Vec<JobFailure>>()),
            ("jobs", of::<Vec<Job>>()),
            ("made-certificates", of::<MadeCertificates>()),
            ("processes", of::<Vec<Process>>()),
            ("quarantined-webhook", of::<QuarantinedWebhook>()),
            ("quarantined-webhooks", of::<Vec<QuarantinedWebhook>>()),
            ("reconciled", of::<Reconciled>()),
            ("refused-webhooks", of::<Vec<RejectedWebhook>>()),
            ("resumed", of::<Resumed>()),
            ("retried", of::<Retried>()),
            ("route-changes", of::<Vec<RouteChange>>()),
            ("routes", of::<Vec<Route>>()),
            ("salvaged-file", of::<SalvagedFile>()),
            ("sent-test-event", of::<SentTestEvent>()),
            ("spool-state", of::<SpoolState>()),
            ("spools", of::<Vec<Spool>>()),
            ("status", of::<Status>()),
            ("tested-routes", of::<Vec<TestedRoute>>()),
            ("verified-webhook", of::<VerifiedWebhook>()),
        ]
    }

    #[test]
    fn committed_json_schemas_are_what_the_types_say() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/json");
        let is_update = std::env::var_os("UPDATE_EXPECT").is_some();
        let mut files = BTreeSet::new();
        for (name, schema) in all() {
            let path = folder.join(format!("{name}.schema.json"));
            let made = serde_json::to_string_pretty(&schema).unwrap() + "\n";
            if is_update {
                fs::create_dir_all(&folder).unwrap();
                fs::write(&path, &made).unwrap();
            }
            let committed = fs::read_to_string(&path).unwrap_or_default();
            assert!(
                committed == made,
                "{} differs: run UPDATE_EXPECT=1 cargo test -p fluent-webhooks json_schemas",
                path.display()
            );
            files.insert(path.file_name().unwrap().to_owned());
        }
        let others: Vec<_> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .filter(|name| !files.contains(name))
            .collect();
        assert!(others.is_empty(), "of no command: {others:?}");
    }
}
