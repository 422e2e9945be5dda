//! Endpoint and credential of a storage account: the same options in every command. A secret comes from a file, a
//! descriptor, a variable or a question, never from the command line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use dray_account::token::STORAGE;
use dray_account::{Account, Credential, Endpoint, Policy, Source, Tokens};
use dray_engine::api;
use dray_engine::api::host::Pipes;
use dray_engine::report::{Kind, Problem, Stop};
use zeroize::Zeroizing;

use crate::key;

/// Longest file of a secret that is read.
const SECRET_MAX: u64 = 64 << 10;

/// Source of Entra tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// The first that there is
    #[default]
    Auto,
    /// Azure's command line (az login)
    Cli,
    /// The identity of this machine of Azure
    Managed,
    /// A federated token (AZURE_FEDERATED_TOKEN_FILE)
    Workload,
    /// An application and AZURE_CLIENT_SECRET
    Principal,
}

/// Entra.
#[derive(Args, Clone, Debug, Default)]
pub struct SignIn {
    /// File with the bearer token [or the variable DRAY_TOKEN]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Source of the token when no other credential is given
    #[arg(long, value_name = "HOW", default_value = "auto", hide_possible_values = true)]
    #[arg(help = "Where a token comes from when none is given: auto, cli, managed, workload, principal")]
    sign_in: By,
}

impl SignIn {
    /// Tokens for `resource`: the one that was given, or what the environment gives.
    ///
    /// # Errors
    /// A file that cannot be read or holds no token.
    pub fn tokens(&self, resource: &str, endpoint: &Endpoint, ca_file: Option<&Path>) -> Result<Tokens, Problem> {
        if let Some(path) = &self.token_file {
            let text = secret(path, "--token-file", "the token")?;
            return Tokens::given(&text).map_err(|problem| problem.path(path));
        }
        if let Some(token) = variable("DRAY_TOKEN") {
            return Tokens::given(&token);
        }
        let source = match self.sign_in {
            By::Auto => Source::Auto,
            By::Cli => Source::Cli,
            By::Managed => Source::Managed,
            By::Workload => Source::Workload,
            By::Principal => Source::Principal,
        };
        Ok(Tokens::from(source, resource, endpoint, ca_file))
    }
}

/// A storage account.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Storage account")]
pub struct AccountArgs {
    /// The account's blob endpoint, such as `https://NAME.blob.core.windows.net`
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// File with a key of the account, or - to be asked [or AZURE_STORAGE_KEY]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["sas_file", "token_file"])]
    account_key_file: Option<PathBuf>,
    /// File with a shared access signature, or - to be asked [or AZURE_STORAGE_SAS_TOKEN]
    #[arg(long, value_name = "FILE", conflicts_with = "token_file")]
    sas_file: Option<PathBuf>,
    #[command(flatten)]
    sign_in: SignIn,
    /// Certificates to believe instead of the system's (PEM) [or the variable SSL_CERT_FILE]
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Minutes that an outage of the service is waited for
    #[arg(long, value_name = "MINUTES", default_value_t = 90)]
    retry_for: u32,
    /// Seconds without a byte after which a request is sent anew
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3600))]
    stall: u32,
}

fn variable(name: &str) -> Option<Zeroizing<String>> {
    std::env::var(name).ok().map(Zeroizing::new).filter(|value| !value.trim().is_empty())
}

/// The text of a file that holds a secret; `-` asks a person.
fn secret(path: &Path, option: &str, what: &str) -> Result<Zeroizing<String>, Problem> {
    if path == Path::new("-") {
        return key::asked(&format!("{option}, {what}: "))?.ok_or_else(|| {
            Problem::new(Kind::Usage, format!("{what} cannot be asked for: this is no terminal"))
                .column(option)
                .advice("name a file, or a descriptor as /dev/fd/N")
        });
    }
    let problem = |error: std::io::Error| {
        Problem::new(Kind::Usage, format!("{what} cannot be read: {error}")).path(path).column(option)
    };
    api::host::read_input(path, SECRET_MAX, Pipes::Taken)
        .and_then(|bytes| api::host::decode_text(&bytes))
        .map_err(problem)
}

impl AccountArgs {
    /// Whether an account was named.
    pub fn is_given(&self) -> bool {
        self.endpoint.is_some()
    }

    /// Whether a person is asked for the secret.
    pub fn asks(&self) -> bool {
        self.account_key_file.iter().chain(&self.sas_file).any(|path| path == Path::new("-"))
    }

    /// The files that are read, never to be written over.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.account_key_file.iter().chain(&self.sas_file).chain(&self.ca_file)
    }

    /// The account, with what signs requests to it; `None` if none was named.
    ///
    /// # Errors
    /// A defect of the address or the credential; nothing was sent.
    pub fn open(&self, stop: Option<Stop>) -> Result<Option<Account>, Problem> {
        let Some(text) = &self.endpoint else { return Ok(None) };
        let example = "https://NAME.blob.core.windows.net";
        // A name alone is meant as the account's.
        let is_name =
            (3..=24).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let whole = if is_name { format!("https://{text}.blob.core.windows.net") } else { text.clone() };
        let endpoint = Endpoint::parse(&whole, "--endpoint", example)?;
        let credential = self.credential(&endpoint)?;
        let patience = Duration::from_secs(60 * u64::from(self.retry_for));
        let policy = Policy {
            patience,
            patience_first: Policy::default().patience_first.min(patience),
            stall: Duration::from_secs(self.stall.into()),
            ..Policy::default()
        };
        Account::new(endpoint, credential, self.ca_file.as_deref(), policy, stop).map(Some)
    }

    fn credential(&self, endpoint: &Endpoint) -> Result<Credential, Problem> {
        let now = api::host::timestamp();
        if let Some(path) = &self.account_key_file {
            let text = secret(path, "--account-key-file", "the account key")?;
            return Credential::key(&text).map_err(|problem| problem.path(path));
        }
        if let Some(path) = &self.sas_file {
            let text = secret(path, "--sas-file", "the shared access signature")?;
            return Credential::sas(&text, now).map_err(|problem| problem.path(path));
        }
        let has_token = self.sign_in.token_file.is_some() || self.sign_in.sign_in != By::Auto;
        if !has_token && let Some(text) = variable("AZURE_STORAGE_KEY") {
            return Credential::key(&text).map_err(|problem| problem.column("AZURE_STORAGE_KEY"));
        }
        if !has_token && let Some(text) = variable("AZURE_STORAGE_SAS_TOKEN") {
            return Credential::sas(&text, now).map_err(|problem| problem.column("AZURE_STORAGE_SAS_TOKEN"));
        }
        self.sign_in.tokens(STORAGE, endpoint, self.ca_file.as_deref()).map(Credential::Entra)
    }
}
