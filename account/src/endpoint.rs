//! Endpoints that credentials may be sent to: over TLS, or on this machine; and the trusted certificates.

use std::fs::{self, File};
use std::io::Read;
use std::net::ToSocketAddrs;
use std::path::{Path, PathBuf};

use dray_engine::report::{Kind, Problem, Setting};
use ureq::tls::{Certificate, PemItem, RootCerts, parse_pem};
use url::Url;

/// Longest file of certificates that is read.
const CERTIFICATES_MAX: u64 = 16 << 20;

/// An address that credentials may be sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    url: Url,
}

impl Endpoint {
    /// The endpoint, if credentials may go there: `https`, or `http` to this machine's own addresses. `option` is how the
    /// command line names it, `example` what would be right.
    ///
    /// # Errors
    /// The defect.
    pub fn parse(text: &str, option: &str, example: &str) -> Result<Self, Problem> {
        let usage = |what: &str, advice: &str| {
            let shown: String = text.chars().flat_map(char::escape_default).take(200).collect();
            // What stands before an @ may be a password, what stands behind a ? a signature.
            let shown = shown.rsplit_once('@').map_or(shown.clone(), |(_, host)| format!("…@{host}"));
            let shown = shown.split_once('?').map_or(shown.clone(), |(place, _)| format!("{place}?…"));
            Problem::new(Kind::Usage, what).column(option).value(shown).advice(advice.to_owned())
        };
        let example = format!("for example {example}");
        // Parsers pass over some of these, each its own.
        if text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') {
            return Err(usage("holds blanks, control characters or backslashes", &example));
        }
        let url = Url::parse(text).map_err(|error| usage(&format!("is no address: {error}"), &example))?;
        let scheme = url.scheme();
        if !matches!(scheme, "http" | "https") {
            return Err(usage("is neither https nor http", &example));
        }
        if !url.username().is_empty() || url.password().is_some() || text.contains('@') {
            return Err(usage("holds a user name (before an @): requests would go to the host after it", &example));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(usage("holds more than scheme, host and path", &example));
        }
        if scheme == "https" {
            return Ok(Self { url });
        }
        let plain = "use https:// (http:// only to 127.0.0.1, [::1] or localhost)";
        let is_here = match url.host() {
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            Some(url::Host::Domain("localhost")) => {
                let found = ("localhost", url.port_or_known_default().unwrap_or(80)).to_socket_addrs();
                found.is_ok_and(|mut found| found.all(|address| address.ip().is_loopback()))
            }
            _ => false,
        };
        if !is_here {
            return Err(usage("would carry token and keys in the clear", plain));
        }
        // 0x7f.1 and 2130706433 are this machine, but not visibly so.
        let host = url.host_str().unwrap_or_default();
        let written = text.get("http://".len()..).unwrap_or_default();
        let end = written.find([':', '/']).filter(|_| !written.starts_with('[')).unwrap_or(written.len());
        let end = if written.starts_with('[') { written.find(']').map_or(end, |end| end + 1) } else { end };
        if !written.get(..end).is_some_and(|typed| typed.eq_ignore_ascii_case(host)) {
            return Err(usage(&format!("is {host}, written in another way"), plain));
        }
        Ok(Self { url })
    }

    /// As it was parsed.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Scheme, host and path without the slash at its end.
    pub fn base(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }

    /// Whether requests are enciphered on the way.
    pub fn is_tls(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// The name of the storage account: the host's first label, or the first segment of the path (emulators).
    pub fn account(&self) -> &str {
        let path = self.url.path().trim_matches('/');
        if path.is_empty() {
            let host = self.url.host_str().unwrap_or_default();
            // A secondary has its own host and its primary's name.
            let label = host.split('.').next().unwrap_or_default();
            label.strip_suffix("-secondary").unwrap_or(label)
        } else {
            path.split('/').next().unwrap_or_default()
        }
    }

    /// Path in front of every resource, without a slash at its end; empty but for emulators.
    pub fn path(&self) -> &str {
        self.url.path().trim_end_matches('/')
    }
}

/// Trusted root certificates: those of `ca_file`, of `SSL_CERT_FILE` and `SSL_CERT_DIR`, of this system, or else Mozilla's.
///
/// # Errors
/// When a file cannot be read, or holds none.
pub fn roots(ca_file: Option<&Path>) -> Result<RootCerts, Problem> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let mut files: Vec<(PathBuf, Option<&str>)> = Vec::new();
    match ca_file {
        Some(path) => files.push((path.to_owned(), None)),
        None => {
            files.extend(variable("SSL_CERT_FILE").map(|path| (path, Some("SSL_CERT_FILE"))));
            if let Some(dir) = variable("SSL_CERT_DIR") {
                let entries = fs::read_dir(&dir).map_err(|error| {
                    let problem = Problem::new(Kind::Usage, format!("the certificates cannot be read: {error}"));
                    problem.path(&dir).column("SSL_CERT_DIR")
                })?;
                let paths = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file());
                files.extend(paths.map(|path| (path, Some("SSL_CERT_DIR"))));
            }
        }
    }
    if files.is_empty() {
        // A proxy that opens TLS signs with a certificate that its company has put there. A container may have none at all.
        let system = rustls_native_certs::load_native_certs().certs;
        let system = system.iter().map(|certificate| Certificate::from_der(certificate).to_owned());
        let all: Vec<Certificate<'static>> = system.collect();
        return Ok(if all.is_empty() { RootCerts::WebPki } else { RootCerts::from(all) });
    }
    let mut all = Vec::new();
    for (path, from) in &files {
        let problem = |what: String| {
            let problem = Problem::new(Kind::Usage, what).path(path);
            let problem = match from {
                Some(variable) => problem.column(*variable),
                None => problem.setting(Setting::CaFile),
            };
            problem.advice("name a file of certificates in PEM form, such as /etc/ssl/certs/ca-certificates.crt")
        };
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(CERTIFICATES_MAX).read_to_end(&mut bytes));
        read.map_err(|error| problem(format!("the certificates cannot be read: {error}")))?;
        let before = all.len();
        all.extend(parse_pem(&bytes).filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        }));
        if all.len() == before && *from != Some("SSL_CERT_DIR") {
            return Err(problem("holds no certificate".into()));
        }
    }
    Ok(RootCerts::from(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Endpoint, Problem> {
        Endpoint::parse(text, "--endpoint", "https://account.blob.core.windows.net")
    }

    #[test]
    fn token_and_keys_go_by_tls_or_to_this_machine() {
        for good in [
            "https://management.azure.com",
            "https://management.azure.com/",
            "https://management.usgovcloudapi.net:443/base",
            "HTTPS://Management.Azure.com",
            "http://127.0.0.1:8080",
            "http://127.0.0.2",
            "http://[::1]:80/",
            "http://localhost:1",
        ] {
            assert!(parse(good).is_ok(), "{good}: {:?}", parse(good));
        }
        for bad in [
            "http://127.0.0.1:80@evil.com",
            "http://127.0.0.1@evil.com/",
            "http://localhost:x@evil.com",
            "https://management.azure.com@evil.com",
            "https://@evil.com",
            "https://user:secret@management.azure.com",
            "http://management.azure.com",
            "http://localhost.evil.com",
            "http://127.0.0.1.nip.io",
            "http://127.0.0.1.",
            "http://[::ffff:8.8.8.8]",
            "http://[::ffff:127.0.0.1]",
            "http://[::]",
            "http://0.0.0.0",
            "http://0",
            "http://0x7f.1",
            "http://2130706433",
            "http://127.1",
            "http://127.0.0.1\\@evil.com",
            "http://127.0.0.1\t.evil.com",
            "http://127.0.0.1\n",
            " https://management.azure.com",
            "http:127.0.0.1",
            "http:\\\\127.0.0.1",
            "https://",
            "https:///",
            "//management.azure.com",
            "management.azure.com",
            "ftp://127.0.0.1",
            "file:///etc/passwd",
            "https://management.azure.com?x=",
            "https://management.azure.com#x",
            "http://127.0.0.1#@evil.com",
            "http://evil.com#@127.0.0.1",
            "http://evil.com?127.0.0.1",
            "",
        ] {
            let problem = parse(bad).map(|found| found.base().to_owned()).expect_err(bad);
            assert_eq!(problem.kind, Kind::Usage, "{bad}");
            assert!(!problem.value.unwrap_or_default().contains("secret"), "{bad}");
        }
    }

    #[test]
    fn the_account_is_in_host_or_path() {
        for (text, account, path) in [
            ("https://contoso.blob.core.windows.net", "contoso", ""),
            ("https://contoso.blob.core.windows.net/", "contoso", ""),
            ("https://contoso-secondary.blob.core.usgovcloudapi.net", "contoso", ""),
            ("http://127.0.0.1:10000/devstoreaccount1", "devstoreaccount1", "/devstoreaccount1"),
        ] {
            let found = parse(text).expect(text);
            assert_eq!((found.account(), found.path()), (account, path), "{text}");
        }
    }

    #[test]
    fn a_signature_in_an_address_is_not_shown() {
        let problem = parse("https://a.blob.core.windows.net/?sv=1&sig=secret").expect_err("a query");
        assert!(!format!("{problem:?}").contains("secret"), "{problem:?}");
    }
}
