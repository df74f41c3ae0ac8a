//! Stored events that are verified again.

use std::sync::Arc;

use event_model::{
    Account, Accounts, Algorithm, Event, Evidence, Forgery, Headers, Inbound, KeyId, KeyName,
    Proof, StoredEvent, StoredVerdict, StoredVerifier, Timestamp, Verified,
};
use fluent_verifier::{
    InvalidRing, KeyRing, PublicKey, Reverifier, SealKeys, SealPair, SealingKey, Signatures,
    Verifier, WebhookVerifier,
};
use simulator::KeyPair;

const BODY: &str = r#"{"id":"e-1","name":"E","accountId":"ACME","retailerId":"34"}"#;

struct World {
    pair: KeyPair,
    name: KeyName,
    accounts: Accounts,
}

fn public(pair: &KeyPair) -> PublicKey {
    PublicKey::parse(&pair.public_base64().unwrap()).unwrap()
}

fn ring(keys: &[(&KeyName, &KeyPair)], retired: &[(&KeyName, &KeyPair)]) -> Arc<KeyRing> {
    let listed = |keys: &[(&KeyName, &KeyPair)]| -> Vec<_> {
        keys.iter()
            .map(|(name, pair)| ((*name).clone(), public(pair)))
            .collect()
    };
    Arc::new(KeyRing::with_retired(listed(keys), listed(retired)).unwrap())
}

impl World {
    fn new() -> Self {
        let name: KeyName = "sydney_sandbox".parse().unwrap();
        let account = |key: &str| Account {
            name: "ACME".to_owned(),
            key: key.parse().unwrap(),
            retailers: None,
        };
        let accounts = Accounts::new([account("sydney_sandbox"), account("sydney_production")]);
        Self {
            pair: KeyPair::generate(1024).unwrap(),
            name,
            accounts,
        }
    }

    /// An event as a gateway admits it.
    fn admitted(&self) -> Event {
        let signed = self.pair.sign(BODY).unwrap();
        let headers: Headers = [("fluent-signature", signed.sha512)].into_iter().collect();
        let inbound = Inbound {
            body: signed.body.into(),
            headers,
            received_at: Timestamp::UNIX_EPOCH,
        };
        let verifier = WebhookVerifier::new(
            ring(&[(&self.name, &self.pair)], &[]),
            Signatures::default(),
        );
        Event::admit(verifier.verify(inbound).unwrap(), &self.accounts, None).unwrap()
    }

    fn verdict(&self, ring: Arc<KeyRing>, event: &Event) -> StoredVerdict {
        Reverifier::new(ring, [Algorithm::Sha512], SealKeys::default()).verify(event)
    }

    fn own_ring(&self) -> Arc<KeyRing> {
        ring(&[(&self.name, &self.pair)], &[])
    }
}

/// An event that somebody wrote into a store: its id is always that of its bytes.
fn written(stored: StoredEvent) -> Event {
    let id = event_model::EventId::of(stored.key.environment(), &stored.body);
    Event::restore(id, stored).unwrap()
}

#[test]
fn what_a_gateway_admitted_is_verified_in_use_and_retired() {
    let world = World::new();
    let event = world.admitted();
    assert_eq!(
        world.verdict(world.own_ring(), &event),
        StoredVerdict::Verified
    );
    let next = KeyPair::generate(1024).unwrap();
    let exchanged = ring(&[(&world.name, &next)], &[(&world.name, &world.pair)]);
    assert_eq!(world.verdict(exchanged, &event), StoredVerdict::Verified);
}

#[test]
fn a_retired_key_admits_nothing() {
    let world = World::new();
    let signed = world.pair.sign(BODY).unwrap();
    let headers: Headers = [("fluent-signature", signed.sha512)].into_iter().collect();
    let inbound = Inbound {
        body: signed.body.into(),
        headers,
        received_at: Timestamp::UNIX_EPOCH,
    };
    let other = KeyPair::generate(1024).unwrap();
    let ring = ring(&[(&world.name, &other)], &[(&world.name, &world.pair)]);
    let door = WebhookVerifier::new(ring, Signatures::default());
    assert!(door.check(&inbound).is_err());
    assert!(door.for_kept().check(&inbound).is_ok());
}

#[test]
fn a_key_that_is_not_here_says_nothing() {
    let world = World::new();
    let other = KeyPair::generate(1024).unwrap();
    for ring in [ring(&[(&world.name, &other)], &[]), ring(&[], &[])] {
        assert_eq!(
            world.verdict(ring, &world.admitted()),
            StoredVerdict::KeyUnknown
        );
    }
}

#[test]
fn what_was_stored_before_digests_were_kept_is_tried_with_every_key_of_its_name() {
    let world = World::new();
    let event = world.admitted();
    let old = StoredEvent {
        key: Arc::new(KeyId::any_named(world.name.clone())),
        ..event.stored().clone()
    };
    let old = written(old);
    let other = KeyPair::generate(1024).unwrap();
    let both = ring(&[(&world.name, &other)], &[(&world.name, &world.pair)]);
    assert_eq!(world.verdict(both, &old), StoredVerdict::Verified);
    // The right key may have been removed since, so nothing is known.
    assert_eq!(
        world.verdict(ring(&[(&world.name, &other)], &[]), &old),
        StoredVerdict::KeyUnknown
    );
}

#[test]
fn what_is_not_as_it_was_signed_is_forged() {
    let world = World::new();
    let good = world.admitted();
    let production: KeyName = "sydney_production".parse().unwrap();
    let digest = good.stored().key.digest().unwrap();
    let check = |what: &str, stored: StoredEvent, expected: Forgery| {
        let verdict = world.verdict(world.own_ring(), &written(stored));
        assert_eq!(verdict, StoredVerdict::Forged(expected), "{what}");
    };
    let stored = || good.stored().clone();
    let body = BODY.replace("34", "35").into();
    check(
        "another body",
        StoredEvent { body, ..stored() },
        Forgery::WrongSignature,
    );
    check(
        "no signature",
        StoredEvent {
            signature: String::new(),
            ..stored()
        },
        Forgery::Unsigned,
    );
    let rubbish = StoredEvent {
        signature: "AAAA".repeat(43),
        ..stored()
    };
    check("another signature", rubbish, Forgery::WrongSignature);
    check(
        "not base64",
        StoredEvent {
            signature: "$$$".to_owned(),
            ..stored()
        },
        Forgery::Unsigned,
    );
    let md5 = StoredEvent {
        proof: Proof::Signed(Algorithm::Md5),
        ..stored()
    };
    check("another algorithm", md5, Forgery::WrongSignature);
    let moved = StoredEvent {
        key: Arc::new(KeyId::new(production, digest)),
        ..stored()
    };
    check(
        "a sandbox body as production's",
        moved,
        Forgery::WrongEnvironment,
    );
    let api = StoredEvent {
        proof: Proof::Api,
        ..stored()
    };
    // Fluent's key is not a key for seals, so nothing is known of it.
    assert_eq!(
        world.verdict(world.own_ring(), &written(api)),
        StoredVerdict::KeyUnknown
    );
    let unsealed = StoredEvent {
        proof: Proof::Api,
        signature: String::new(),
        ..stored()
    };
    check("reconciled without a seal", unsealed, Forgery::Unsigned);
}

#[test]
fn a_key_that_is_listed_under_another_regions_name_is_no_forgery() {
    let world = World::new();
    let dublin: KeyName = "dublin_sandbox".parse().unwrap();
    for misnamed in [
        ring(&[(&dublin, &world.pair)], &[]),
        ring(&[], &[(&dublin, &world.pair)]),
    ] {
        assert_eq!(
            world.verdict(Arc::clone(&misnamed), &world.admitted()),
            StoredVerdict::KeyMisnamed
        );
        // What that key did not sign is one, whatever its name.
        let event = world.admitted();
        let altered = StoredEvent {
            body: BODY.replace("34", "35").into(),
            ..event.stored().clone()
        };
        assert_eq!(
            world.verdict(misnamed, &written(altered)),
            StoredVerdict::Forged(Forgery::WrongSignature)
        );
    }
    let production: KeyName = "dublin_production".parse().unwrap();
    assert_eq!(
        world.verdict(ring(&[(&production, &world.pair)], &[]), &world.admitted()),
        StoredVerdict::Forged(Forgery::WrongEnvironment),
        "the ring says that production's key signed it"
    );
}

#[test]
fn a_signature_of_an_algorithm_that_is_not_enabled_waits() {
    let world = World::new();
    let event = world.admitted();
    let md5 = StoredEvent {
        proof: Proof::Signed(Algorithm::Md5),
        signature: world.pair.sign(BODY).unwrap().md5,
        ..event.stored().clone()
    };
    let any_key = StoredEvent {
        key: Arc::new(KeyId::any_named(world.name.clone())),
        ..md5.clone()
    };
    for stored in [md5, any_key] {
        let by = |enabled: &[Algorithm]| {
            let verifier = Reverifier::new(
                world.own_ring(),
                enabled.iter().copied(),
                SealKeys::default(),
            );
            verifier.verify(&written(stored.clone()))
        };
        assert_eq!(by(&[Algorithm::Sha512]), StoredVerdict::AlgorithmDisabled);
        assert_eq!(by(&[Algorithm::Md5]), StoredVerdict::Verified);
        assert_eq!(
            by(&[Algorithm::Sha512, Algorithm::Md5]),
            StoredVerdict::Verified
        );
    }
}

fn reconciled(accounts: &Accounts, evidence: Evidence) -> Event {
    let inbound = Inbound {
        body: BODY.into(),
        headers: Headers::default(),
        received_at: Timestamp::UNIX_EPOCH,
    };
    // A test may assert what it wants to be believed.
    Event::admit(Verified::assert(inbound, evidence), accounts, None).unwrap()
}

#[test]
fn what_was_reconciled_is_believed_for_its_seal() {
    let world = World::new();
    let pair = SealPair::generate().unwrap();
    let other = SealPair::generate().unwrap();
    let sealing = SealingKey::parse(&pair.private).unwrap();
    let event = reconciled(
        &world.accounts,
        sealing.evidence(world.name.clone(), BODY.as_bytes()),
    );
    let by = |public: &[&str], event: &Event| {
        let seals = SealKeys::parse(public.iter().copied()).unwrap();
        Reverifier::new(world.own_ring(), [Algorithm::Sha512], seals).verify(event)
    };
    assert_eq!(
        by(&[&other.public, &pair.public], &event),
        StoredVerdict::Verified
    );
    assert_eq!(by(&[&other.public], &event), StoredVerdict::KeyUnknown);
    // A seal is for one body in one environment.
    let moved = SealingKey::parse(&pair.private).unwrap();
    let of_production = moved.evidence("sydney_production".parse().unwrap(), BODY.as_bytes());
    let stolen = StoredEvent {
        signature: of_production.signature,
        ..event.stored().clone()
    };
    let verdict = by(&[&pair.public], &written(stolen));
    assert_eq!(verdict, StoredVerdict::Forged(Forgery::WrongSignature));
    // A seal is by one key only.
    let foreign = SealingKey::parse(&other.private)
        .unwrap()
        .evidence(world.name.clone(), BODY.as_bytes());
    let foreign = StoredEvent {
        signature: foreign.signature,
        ..event.stored().clone()
    };
    assert_eq!(
        by(&[&pair.public], &written(foreign)),
        StoredVerdict::Forged(Forgery::WrongSignature)
    );
}

#[test]
fn a_mark_of_what_was_reconciled_is_believed_for_its_seal() {
    let world = World::new();
    let pair = SealPair::generate().unwrap();
    let sealing = SealingKey::parse(&pair.private).unwrap();
    let event = world.admitted();
    let key = event.fluent_key();
    let id = event.id();
    let seal = sealing.reconciled(key, id);
    let seals = SealKeys::parse([&*pair.public]).unwrap();
    let verifier = Reverifier::new(world.own_ring(), [Algorithm::Sha512], seals);
    assert!(verifier.has_reconciled(key, id, &seal));
    let another = event_model::EventId::of(event_model::Environment::Production, BODY.as_bytes());
    assert!(!verifier.has_reconciled(key, another, &seal));
    let digest = sealing.digest();
    for bad in [
        "",
        ":",
        "x",
        &seal[1..],
        &format!("{digest}:"),
        &format!("{digest}:AAAA"),
    ] {
        assert!(!verifier.has_reconciled(key, id, bad), "{bad}");
    }
}

#[test]
fn one_key_is_in_use_or_retired_under_one_name() {
    let world = World::new();
    let key = || public(&world.pair);
    let name = || world.name.clone();
    let both = KeyRing::with_retired([(name(), key())], [(name(), key())]);
    assert_eq!(both.unwrap_err(), InvalidRing::InUse(name()));
    let other: KeyName = "dublin_sandbox".parse().unwrap();
    let shared = KeyRing::with_retired([(name(), key())], [(other.clone(), key())]);
    assert_eq!(shared.unwrap_err(), InvalidRing::Shared(name(), other));
}

#[test]
fn what_is_no_key_for_seals_says_what_is_expected() {
    let pair = SealPair::generate().unwrap();
    let error = |text: &str| SealKeys::parse([text]).unwrap_err().to_string();
    assert!(
        error(&pair.private).contains("PRIVATE"),
        "{}",
        error(&pair.private)
    );
    let rsa = KeyPair::generate(1024).unwrap().public_pem().unwrap();
    for text in ["", "x", &rsa] {
        assert!(error(text).contains("Ed25519"), "{}", error(text));
    }
    for text in ["", "x", &pair.public] {
        let error = SealingKey::parse(text).unwrap_err().to_string();
        assert!(error.contains("openssl genpkey"), "{error}");
    }
    let line: String = pair
        .public
        .lines()
        .filter(|line| !line.starts_with('-'))
        .collect();
    assert!(SealKeys::parse([&*line]).is_ok());
}
