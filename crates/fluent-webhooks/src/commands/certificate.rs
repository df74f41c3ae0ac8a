//! The command `certificate`: an authority of one's own, with certificates for the operator's API.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use event_model::{Clock, SystemClock, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};

use crate::json::MadeCertificates;
use crate::output;

/// The authority's name, which is also in what it signed: with it and the key it signs again.
const AUTHORITY: &str = "fluent-webhooks";

/// How long the authority lasts, in days: its certificates are renewed, and it is not.
const AUTHORITY_DAYS: i64 = 3650;

/// A clock that is behind must not refuse what was made today.
const DAYS_BEFORE: i64 = 2;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A host name or an address under which callers reach the server; may be given more than
    /// once
    #[arg(long = "name", value_name = "NAME", required = true)]
    names: Vec<String>,
    /// The name of a caller, as in `operator.certificates`; makes a certificate for it, too
    #[arg(long, value_name = "NAME")]
    client: Option<String>,
    /// The folder for the files; an authority that is there signs again
    #[arg(long, default_value = "certificates")]
    folder: PathBuf,
    /// How many days the certificates last
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(i64).range(1..=3650))]
    days: i64,
    /// Print JSON, for machines
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    private_files::create_folder(&args.folder)
        .with_context(|| format!("making the folder {}", args.folder.display()))?;
    let files = Files::new(&args.folder);
    files.ensure_new(args.client.is_some())?;
    let now = SystemClock.now();
    let mut made = Vec::new();
    let authority = files.authority(now, &mut made)?;
    let server = certificate(
        &args.names,
        now,
        args.days,
        ExtendedKeyUsagePurpose::ServerAuth,
    )?;
    made.extend(signed(server, &authority, &files.server)?);
    if let Some(client) = &args.client {
        let names = [client.clone()];
        let client = certificate(&names, now, args.days, ExtendedKeyUsagePurpose::ClientAuth)?;
        made.extend(signed(client, &authority, &files.client)?);
    }
    if args.json {
        return output::json(&MadeCertificates::new(&args.folder, &made));
    }
    describe(args, &files, &made);
    Ok(())
}

/// A certificate's file, and that of its key.
struct Pair {
    certificate: PathBuf,
    key: PathBuf,
}

struct Files {
    authority: Pair,
    server: Pair,
    client: Pair,
}

impl Files {
    fn new(folder: &Path) -> Self {
        let pair = |name: &str| Pair {
            certificate: folder.join(format!("{name}.pem")),
            key: folder.join(format!("{name}.key")),
        };
        Self {
            authority: pair("ca"),
            server: pair("server"),
            client: pair("client"),
        }
    }

    /// Refuses before anything is made.
    fn ensure_new(&self, has_client: bool) -> anyhow::Result<()> {
        let client = has_client.then_some(&self.client);
        for pair in [Some(&self.server), client].into_iter().flatten() {
            for path in [&pair.certificate, &pair.key] {
                if path.exists() {
                    bail!(
                        "{} is there already, and is not overwritten: move it away, or name another folder with --folder",
                        path.display()
                    );
                }
            }
        }
        if self.authority.certificate.exists() != self.authority.key.exists() {
            bail!(
                "of {} and {} one is missing: an authority needs both",
                self.authority.certificate.display(),
                self.authority.key.display()
            );
        }
        Ok(())
    }

    /// The authority of the folder, which is made if there is none.
    fn authority(
        &self,
        now: Timestamp,
        made: &mut Vec<PathBuf>,
    ) -> anyhow::Result<Issuer<'static, KeyPair>> {
        let Pair { certificate, key } = &self.authority;
        let mut params = dated(CertificateParams::default(), now, AUTHORITY_DAYS);
        params.distinguished_name = named(AUTHORITY);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        if key.exists() {
            let pem = std::fs::read_to_string(key)
                .with_context(|| format!("reading {}", key.display()))?;
            let pair = KeyPair::from_pem(&pem)
                .with_context(|| format!("{} holds no private key", key.display()))?;
            return Ok(Issuer::new(params, pair));
        }
        let pair = KeyPair::generate()?;
        create(key, &pair.serialize_pem())?;
        create(certificate, &params.self_signed(&pair)?.pem())?;
        made.extend([certificate.clone(), key.clone()]);
        Ok(Issuer::new(params, pair))
    }
}

fn certificate(
    names: &[String],
    now: Timestamp,
    days: i64,
    purpose: ExtendedKeyUsagePurpose,
) -> anyhow::Result<CertificateParams> {
    let params = CertificateParams::new(names.to_vec())
        .with_context(|| format!("expected host names or addresses: {}", names.join(", ")))?;
    let mut params = dated(params, now, days);
    params.distinguished_name = named(&names[0]);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![purpose];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn named(name: &str) -> DistinguishedName {
    let mut named = DistinguishedName::new();
    named.push(DnType::CommonName, name);
    named
}

fn dated(mut params: CertificateParams, now: Timestamp, days: i64) -> CertificateParams {
    let day = |days: i64| {
        let seconds = now.as_second().saturating_add(days * 86_400);
        let then = Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX);
        let text = then.strftime("%Y-%m-%d").to_string();
        let mut parts = text.split('-');
        let year = parts.next().and_then(|year| year.parse().ok());
        let mut small = || parts.next().and_then(|part| part.parse().ok()).unwrap_or(1);
        date_time_ymd(year.unwrap_or(1), small(), small())
    };
    params.not_before = day(-DAYS_BEFORE);
    params.not_after = day(days);
    params
}

fn signed(
    params: CertificateParams,
    authority: &Issuer<'_, KeyPair>,
    files: &Pair,
) -> anyhow::Result<[PathBuf; 2]> {
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, authority)?;
    create(&files.key, &key.serialize_pem())?;
    create(&files.certificate, &certificate.pem())?;
    Ok([files.certificate.clone(), files.key.clone()])
}

/// Writes a new file that others can't read.
fn create(path: &Path, text: &str) -> anyhow::Result<()> {
    let opened = private_files::open_options()
        .write(true)
        .create_new(true)
        .open(path);
    match opened {
        Ok(mut file) => file
            .write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .with_context(|| format!("writing {}", path.display())),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!(
                "{} is there already, and is not overwritten",
                path.display()
            )
        }
        Err(error) => Err(error).with_context(|| format!("making {}", path.display())),
    }
}

fn describe(args: &Args, files: &Files, made: &[PathBuf]) {
    for path in made {
        output::line(format!("made {}", path.display()));
    }
    let name = &args.names[0];
    let host = if name.contains(':') {
        format!("[{name}]")
    } else {
        name.clone()
    };
    let server = &files.server;
    output::line(format!(
        "\nAt the server, in the settings (paths are relative to their file):\n\n  fluent-connect:\n    operator:\n      grpc: 0.0.0.0:50051\n      tls:\n        certificate: {}\n        key: {}",
        server.certificate.display(),
        server.key.display()
    ));
    let ca = files.authority.certificate.display();
    match &args.client {
        Some(client) => output::line(format!(
            "        client-ca: {ca}\n      certificates: [{{ name: {client}, roles: [admin] }}]\n\nFrom elsewhere:\n\n  fluent-webhooks status --server https://{host}:50051 --ca {ca} --certificate {} --key {}",
            files.client.certificate.display(),
            files.client.key.display()
        )),
        None => output::line(format!(
            "      tokens: [{{ name: ops, file: secrets/ops.token, roles: [admin] }}]\n\nFrom elsewhere:\n\n  fluent-webhooks status --server https://{host}:50051 --ca {ca} --token FILE"
        )),
    }
    output::line(format!(
        "\nKeep {} to yourself: whoever has it can make certificates that your servers trust. They last {} days.",
        files.authority.key.display(),
        args.days
    ));
}
