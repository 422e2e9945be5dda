//! Tokens of Entra: given, from Azure's command line, of a managed identity, a workload identity or a service principal.
//!
//! Environment variables and addresses are those that every Azure client reads.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use dray_engine::report::{Advice, Kind, Problem, Setting};
use serde_json::Value;
use url::Url;
use zeroize::Zeroizing;

use crate::endpoint::Endpoint;
use crate::send::{Http, Policy, Request};
use crate::sign::encoded;

/// Resource of a token for blobs, in every cloud.
pub const STORAGE: &str = "https://storage.azure.com";
/// Longest token or secret that is read from a file.
const FILE_MAX: u64 = 64 << 10;
/// A token is renewed when it holds no longer than this.
const MARGIN: Duration = Duration::from_secs(300);
/// Azure's command line starts an interpreter first.
const CLI_WAIT: Duration = Duration::from_secs(60);
/// Endpoint of the identity service of a virtual machine in Azure: plain HTTP that never leaves the host.
const METADATA: &str = "http://169.254.169.254";

/// Source of tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// The first that there is: principal, workload, command line, managed identity.
    #[default]
    Auto,
    /// `az account get-access-token`.
    Cli,
    /// The identity of this machine of Azure, or of the app (`IDENTITY_ENDPOINT`).
    Managed,
    /// A federated token in a file (`AZURE_FEDERATED_TOKEN_FILE`).
    Workload,
    /// An application and its secret (`AZURE_CLIENT_SECRET`).
    Principal,
}

/// A token, and how long it holds.
struct Held {
    token: Zeroizing<String>,
    until: Option<Instant>,
}

/// Gives tokens for one audience, and renews them.
pub struct Tokens {
    source: Option<Source>,
    resource: String,
    authority: String,
    ca_file: Option<PathBuf>,
    held: Mutex<Option<Held>>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("source", &self.source).field("resource", &self.resource).finish_non_exhaustive()
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

fn wrong(what: impl Into<String>) -> Problem {
    Problem::new(Kind::Usage, what)
}

/// Sign-in authority of the cloud that an endpoint belongs to.
fn authority_of(endpoint: &Endpoint) -> &'static str {
    let host = endpoint.url().host_str().unwrap_or_default();
    if host.ends_with(".usgovcloudapi.net") {
        "https://login.microsoftonline.us"
    } else if host.ends_with(".chinacloudapi.cn") {
        "https://login.chinacloudapi.cn"
    } else {
        "https://login.microsoftonline.com"
    }
}

/// The audience of the management API that an endpoint serves.
pub fn management_of(endpoint: &Endpoint) -> String {
    let host = endpoint.url().host_str().unwrap_or_default();
    let known = ["management.azure.com", "management.usgovcloudapi.net", "management.chinacloudapi.cn"];
    let host = known.into_iter().find(|known| *known == host).unwrap_or(known[0]);
    format!("https://{host}")
}

impl Tokens {
    /// A token that is there already, and is not renewed.
    ///
    /// # Errors
    /// When it is none.
    pub fn given(token: &str) -> Result<Self, Problem> {
        let token = token.trim();
        if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(wrong("the bearer token is empty or has blanks in it").advice(
                Advice::from("`az account get-access-token --query accessToken -o tsv > FILE`, then ")
                    + Setting::TokenFile,
            ));
        }
        let held = Held { token: Zeroizing::new(token.to_owned()), until: None };
        Ok(Self {
            source: None,
            resource: String::new(),
            authority: String::new(),
            ca_file: None,
            held: Mutex::new(Some(held)),
        })
    }

    /// Tokens for `resource` from `source`, in the cloud of `endpoint`; the first is fetched when it is needed.
    pub fn from(source: Source, resource: &str, endpoint: &Endpoint, ca_file: Option<&Path>) -> Self {
        let authority = variable("AZURE_AUTHORITY_HOST").unwrap_or_else(|| authority_of(endpoint).to_owned());
        Self {
            source: Some(source),
            resource: resource.to_owned(),
            authority,
            ca_file: ca_file.map(Path::to_owned),
            held: Mutex::new(None),
        }
    }

    /// The value of `Authorization`.
    ///
    /// # Errors
    /// When no token can be had; says what was tried.
    pub fn authorization(&self) -> Result<Zeroizing<String>, Problem> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let is_good = held.as_ref().is_some_and(|held| held.until.is_none_or(|until| Instant::now() + MARGIN < until));
        if let (false, Some(source)) = (is_good, self.source) {
            *held = Some(self.fetch(source)?);
        }
        let token = held.as_ref().map(|held| held.token.as_str()).unwrap_or_default();
        Ok(Zeroizing::new(format!("Bearer {token}")))
    }

    /// The service did not take the token: the next one is fetched anew. `false` if there is no next one.
    pub fn renew(&self) -> bool {
        let is_renewable = self.source.is_some();
        if is_renewable {
            *self.held.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        is_renewable
    }

    fn fetch(&self, source: Source) -> Result<Held, Problem> {
        match source {
            Source::Cli => self.cli(),
            Source::Managed => self.managed(Policy::default().patience_first),
            Source::Workload => self.workload(),
            Source::Principal => self.principal(),
            Source::Auto => {
                if variable("AZURE_CLIENT_SECRET").is_some() {
                    return self.principal();
                }
                if variable("AZURE_FEDERATED_TOKEN_FILE").is_some() {
                    return self.workload();
                }
                if variable("IDENTITY_ENDPOINT").is_some() {
                    return self.managed(Policy::default().patience_first);
                }
                let cli = match self.cli() {
                    Ok(held) => return Ok(held),
                    Err(problem) => problem,
                };
                // Elsewhere than in Azure this address never answers.
                self.managed(Duration::from_secs(2)).map_err(|_| {
                    Problem::new(Kind::Usage, format!("no sign-in to Azure was found: {}", cli.what)).advice(
                        Advice::from("sign in with `az login`; or give ")
                            + Setting::AccountKeyFile
                            + " or "
                            + Setting::SasFile
                            + "; or set AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET; "
                            + Setting::SignIn
                            + " managed on a machine of Azure",
                    )
                })
            }
        }
    }

    fn cli(&self) -> Result<Held, Problem> {
        let advice =
            || Advice::from("sign in with `az login`, or use ") + Setting::AccountKeyFile + " or " + Setting::SasFile;
        let mut child = Command::new("az")
            .args(["account", "get-access-token", "--output", "json", "--resource", &self.resource])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| wrong(format!("Azure's command line (az) does not start: {error}")).advice(advice()))?;
        let mut text = Zeroizing::new(String::new());
        let reader = child.stdout.take().map(|out| {
            std::thread::spawn(move || {
                let mut text = Zeroizing::new(String::new());
                let _ = out.take(FILE_MAX).read_to_string(&mut text);
                text
            })
        });
        let end = Instant::now() + CLI_WAIT;
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break Some(status),
                Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(20)),
                _ => {
                    let _ = child.kill();
                    let _ = child.wait();
                    break None;
                }
            }
        };
        if let Some(read) = reader.filter(|_| status.is_some()).and_then(|reader| reader.join().ok()) {
            text = read;
        }
        if !status.is_some_and(|status| status.success()) {
            return Err(wrong("Azure's command line (az) gives no token").advice(advice()));
        }
        answer(&text).ok_or_else(|| wrong("Azure's command line (az) answers without a token").advice(advice()))
    }

    fn managed(&self, patience: Duration) -> Result<Held, Problem> {
        let client = variable("AZURE_CLIENT_ID");
        let client = client.map(|id| format!("&client_id={}", encoded(&id, false))).unwrap_or_default();
        let resource = encoded(&self.resource, false);
        let (base, query, header) = match (variable("IDENTITY_ENDPOINT"), variable("IDENTITY_HEADER")) {
            (Some(base), Some(secret)) => {
                (base, format!("?api-version=2019-08-01&resource={resource}{client}"), ("X-IDENTITY-HEADER", secret))
            }
            _ => {
                let base = variable("AZURE_POD_IDENTITY_AUTHORITY_HOST").unwrap_or_else(|| METADATA.into());
                let base = format!("{}/metadata/identity/oauth2/token", base.trim_end_matches('/'));
                (base, format!("?api-version=2018-02-01&resource={resource}{client}"), ("Metadata", "true".into()))
            }
        };
        let is_metadata = Url::parse(&base).is_ok_and(|url| url.host_str() == Some("169.254.169.254"));
        let endpoint = if is_metadata {
            // Nothing secret goes there, and the answer comes from the machine's own host.
            Endpoint::parse("http://127.0.0.1", "", "")?
        } else {
            Endpoint::parse(&base, "IDENTITY_ENDPOINT", "http://127.0.0.1:41741/msi/token/")?
        };
        let policy = Policy {
            patience,
            patience_first: patience,
            stall: patience.max(Duration::from_secs(2)),
            ..Policy::default()
        };
        let http = Http::new(&endpoint, None, policy)?;
        self.ask(&http, "GET", &format!("{base}{query}"), &[header], None, "the managed identity")
    }

    fn workload(&self) -> Result<Held, Problem> {
        let (tenant, client) = self.application("workload")?;
        let file = variable("AZURE_FEDERATED_TOKEN_FILE")
            .ok_or_else(|| wrong("AZURE_FEDERATED_TOKEN_FILE is not set").advice("workload identity needs it"))?;
        let text = dray_engine::api::host::read_input(Path::new(&file), FILE_MAX, dray_engine::api::host::Pipes::Taken);
        let text = text.map_err(|error| wrong(format!("the federated token cannot be read: {error}")).path(&file))?;
        let assertion = Zeroizing::new(String::from_utf8_lossy(&text).trim().to_owned());
        let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        let form = Zeroizing::new(format!(
            "client_assertion_type={}&client_assertion={}",
            encoded(kind, false),
            encoded(&assertion, false)
        ));
        self.client_credentials(&tenant, &client, &form)
    }

    fn principal(&self) -> Result<Held, Problem> {
        let (tenant, client) = self.application("principal")?;
        let secret = variable("AZURE_CLIENT_SECRET").map(Zeroizing::new).ok_or_else(|| {
            wrong("AZURE_CLIENT_SECRET is not set").advice("a service principal needs its secret in this variable")
        })?;
        let form = Zeroizing::new(format!("client_secret={}", encoded(&secret, false)));
        self.client_credentials(&tenant, &client, &form)
    }

    fn application(&self, source: &str) -> Result<(String, String), Problem> {
        let need = |name: &str| {
            variable(name).ok_or_else(|| {
                wrong(format!("{name} is not set")).advice(
                    Advice::from(Setting::SignIn) + format!(" {source} needs AZURE_TENANT_ID and AZURE_CLIENT_ID"),
                )
            })
        };
        Ok((need("AZURE_TENANT_ID")?, need("AZURE_CLIENT_ID")?))
    }

    fn client_credentials(&self, tenant: &str, client: &str, proof: &str) -> Result<Held, Problem> {
        let endpoint = Endpoint::parse(&self.authority, "AZURE_AUTHORITY_HOST", "https://login.microsoftonline.com")?;
        let policy = Policy { patience: Duration::from_secs(60), ..Policy::default() };
        let http = Http::new(&endpoint, self.ca_file.as_deref(), policy)?;
        let form = Zeroizing::new(format!(
            "grant_type=client_credentials&client_id={}&scope={}&{proof}",
            encoded(client, false),
            encoded(&format!("{}/.default", self.resource), false)
        ));
        let uri = format!("{}/{}/oauth2/v2.0/token", endpoint.base(), encoded(tenant, false));
        let header = ("Content-Type", "application/x-www-form-urlencoded".to_owned());
        self.ask(&http, "POST", &uri, &[header], Some(form.as_bytes()), "the sign-in")
    }

    fn ask(
        &self,
        http: &Http,
        method: &str,
        uri: &str,
        headers: &[(&str, String)],
        body: Option<&[u8]>,
        who: &str,
    ) -> Result<Held, Problem> {
        let name = format!("{method} {}", uri.split('?').next().unwrap_or_default());
        let said = http.persist(|_| {
            let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), Zeroizing::new(value.clone())));
            let request =
                Request { method, uri: Zeroizing::new(uri.to_owned()), name: &name, headers: headers.collect(), body };
            let mut got = http.once(&request).map_err(|failure| (failure, None))?;
            let status = got.status;
            let bytes = Zeroizing::new(got.bytes(FILE_MAX).map_err(|failure| (failure, None))?);
            let text = Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned());
            if (200..300).contains(&status) {
                return Ok(text);
            }
            let value: Value = serde_json::from_str(&text).unwrap_or_default();
            let code = value["error"].as_str().unwrap_or_default().to_owned();
            // Its first line says why; what follows are trace ids.
            let message = value["error_description"].as_str().unwrap_or_default();
            let message = message.lines().next().unwrap_or_default().chars().take(300).collect();
            let failure = crate::Failure {
                status: Some(status),
                code,
                message,
                request: name.clone(),
                is_stopped: false,
                earlier: 0,
            };
            Err((failure, crate::send::retry_after(&got.headers)))
        });
        let text = said.map_err(|failure| {
            let problem = failure.problem();
            Problem { what: format!("{who} gives no token: {}", problem.what), kind: Kind::Usage, ..problem }
                .advice("check tenant, application and its secret or federation, and what identity the machine has")
        })?;
        answer(&text).ok_or_else(|| wrong(format!("{who} answers without a token")))
    }
}

/// A token out of any of the forms it comes in.
fn answer(text: &str) -> Option<Held> {
    let value: Value = serde_json::from_str(text).ok()?;
    let token = ["access_token", "accessToken"].iter().find_map(|key| value[key].as_str())?;
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return None;
    }
    let number = |key: &str| value[key].as_u64().or_else(|| value[key].as_str().and_then(|text| text.parse().ok()));
    let left = number("expires_in").or_else(|| {
        let at = i64::try_from(number("expires_on")?).ok()?;
        u64::try_from(at - jiff::Timestamp::now().as_second()).ok()
    });
    // Without word of its end it is taken for the shortest that is given out.
    let until = Instant::now() + Duration::from_secs(left.unwrap_or(600).min(86_400));
    Some(Held { token: Zeroizing::new(token.to_owned()), until: Some(until) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_an_answer_is_read() {
        let soon = jiff::Timestamp::now().as_second() + 3600;
        for text in [
            "{\"access_token\":\"abc\",\"expires_in\":3599}".to_owned(),
            format!("{{\"access_token\":\"abc\",\"expires_on\":\"{soon}\"}}"),
            format!("{{\"accessToken\":\"abc\",\"expires_on\":{soon},\"expiresOn\":\"2026-01-01 00:00:00.000000\"}}"),
        ] {
            let held = answer(&text).expect("a token");
            assert_eq!(*held.token, "abc");
            let left = held.until.expect("an end") - Instant::now();
            assert!(left > Duration::from_secs(3500) && left <= Duration::from_secs(3600), "{text}: {left:?}");
        }
        for bad in ["", "{}", "{\"access_token\":\"a b\"}", "{\"access_token\":\"\"}"] {
            assert!(answer(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_token_is_never_shown_and_clouds_are_told_apart() {
        let tokens = Tokens::given("hush\n").expect("a token");
        assert_eq!(*tokens.authorization().expect("held"), "Bearer hush");
        assert!(!format!("{tokens:?}").contains("hush"));
        assert!(!tokens.renew(), "a given token has no successor");
        assert!(Tokens::given("a b").is_err());
        for (endpoint, authority) in [
            ("https://a.blob.core.windows.net", "https://login.microsoftonline.com"),
            ("https://a.blob.core.usgovcloudapi.net", "https://login.microsoftonline.us"),
            ("https://a.blob.core.chinacloudapi.cn", "https://login.chinacloudapi.cn"),
        ] {
            assert_eq!(authority_of(&Endpoint::parse(endpoint, "", "").expect("good")), authority);
        }
        let here = Endpoint::parse("https://management.usgovcloudapi.net", "", "").expect("good");
        assert_eq!(management_of(&here), "https://management.usgovcloudapi.net");
    }
}
