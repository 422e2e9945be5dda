//! The operations on a storage account's blobs.

use std::path::Path;
use std::time::Duration;

use dray_engine::api::azure::base64;
use dray_engine::report::{Problem, Stop};
use ureq::http::HeaderMap;
use zeroize::Zeroizing;

use crate::credential::Credential;
use crate::endpoint::Endpoint;
use crate::list::{self, BlobKind, Include, Page, PageRange, md5};
use crate::send::{ANSWER_MAX, Answer, Failure, Http, Policy, Request, retry_after};
use crate::sign::{VERSION, authorization, encoded, text_to_sign};

/// Blobs of one page of a listing: the most that the service gives.
const PAGE: u32 = 5000;

/// Condition of an operation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// Only while the blob has this ETag; `*`: only if there is one.
    pub if_match: Option<String>,
    /// Only if it has another; `*`: only if there is none.
    pub if_none_match: Option<String>,
    /// The lease that this client holds.
    pub lease: Option<String>,
}

impl Condition {
    /// Only while the blob is the one that had this ETag.
    pub fn same(etag: &str) -> Self {
        Self { if_match: Some(etag.to_owned()), ..Self::default() }
    }

    /// Only where no blob is.
    pub fn absent() -> Self {
        Self { if_none_match: Some("*".into()), ..Self::default() }
    }

    fn headers(&self) -> Vec<(String, String)> {
        let all =
            [("If-Match", &self.if_match), ("If-None-Match", &self.if_none_match), ("x-ms-lease-id", &self.lease)];
        all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?))).collect()
    }
}

/// Properties and metadata that are set with a blob.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Content-Type.
    pub content_type: Option<String>,
    /// Content-Encoding.
    pub content_encoding: Option<String>,
    /// Content-Language.
    pub content_language: Option<String>,
    /// Cache-Control.
    pub cache_control: Option<String>,
    /// MD5 of the whole blob. The service compares it with the content of a blob that is written in one request only.
    pub md5: Option<[u8; 16]>,
    /// Names and values.
    pub metadata: Vec<(String, String)>,
}

impl Settings {
    fn headers(&self) -> Vec<(String, String)> {
        let mut out: Vec<(String, String)> = [
            ("x-ms-blob-content-type", &self.content_type),
            ("x-ms-blob-content-encoding", &self.content_encoding),
            ("x-ms-blob-content-language", &self.content_language),
            ("x-ms-blob-cache-control", &self.cache_control),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)))
        .collect();
        out.extend(self.md5.map(|md5| ("x-ms-blob-content-md5".to_owned(), coded(&md5))));
        out.extend(self.metadata.iter().map(|(name, value)| (format!("x-ms-meta-{name}"), value.clone())));
        out
    }
}

/// Properties of a blob.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Bytes.
    pub length: u64,
    /// Kind.
    pub kind: BlobKind,
    /// Changes with the blob.
    pub etag: String,
    /// Properties and metadata, as they would be set again.
    pub settings: Settings,
    /// `Archive`, ….
    pub tier: Option<String>,
    /// As the service writes it.
    pub last_modified: String,
}

/// Content and the hash that the service is to check it by.
#[derive(Clone, Copy, Debug)]
pub struct Content<'a> {
    /// Bytes that are sent.
    pub bytes: &'a [u8],
    /// Their MD5.
    pub md5: Option<[u8; 16]>,
}

/// A block in a list of blocks: its id in base64, as the service keeps it.
pub type Part = String;

/// Bytes of a blob, and what belongs to them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Got {
    /// ETag of the blob that they are of.
    pub etag: String,
    /// MD5 of the whole blob, if it has one.
    pub md5: Option<[u8; 16]>,
    /// Length of the whole blob.
    pub length: Option<u64>,
}

fn coded(bytes: &[u8]) -> String {
    let mut out = Vec::new();
    base64::encode(bytes, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

/// A storage account's blobs.
#[derive(Debug)]
pub struct Account {
    endpoint: Endpoint,
    credential: Credential,
    http: Http,
}

/// An operation before it is signed.
struct Operation<'a> {
    method: &'a str,
    container: &'a str,
    blob: &'a str,
    query: Vec<(&'static str, String)>,
    headers: Vec<(String, String)>,
    body: Option<&'a [u8]>,
}

impl Account {
    /// The account at `endpoint`.
    ///
    /// # Errors
    /// The certificates in `ca_file` cannot be read.
    pub fn new(
        endpoint: Endpoint,
        credential: Credential,
        ca_file: Option<&Path>,
        policy: Policy,
        stop: Option<Stop>,
    ) -> Result<Self, Problem> {
        let mut http = Http::new(&endpoint, ca_file, policy)?;
        if let Some(stop) = stop {
            http = http.until(stop);
        }
        Ok(Self { endpoint, credential, http })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.endpoint.account()
    }

    /// Its endpoint.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Kind of authorisation, in a word.
    pub fn signed_by(&self) -> &'static str {
        self.credential.kind()
    }

    /// Sends once, signed.
    fn once(&self, operation: &Operation<'_>, name: &str) -> Result<Answer, (Failure, Option<Duration>)> {
        let mut path = self.endpoint.path().to_owned();
        if !operation.container.is_empty() {
            path.push('/');
            path.push_str(&encoded(operation.container, false));
        }
        if !operation.blob.is_empty() {
            path.push('/');
            path.push_str(&encoded(operation.blob, true));
        }
        if path.is_empty() || operation.container.is_empty() {
            path.push('/');
        }
        let now = jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let mut headers = operation.headers.clone();
        headers.push(("x-ms-date".into(), now));
        headers.push(("x-ms-version".into(), VERSION.into()));
        if let Some(body) = operation.body {
            headers.push(("Content-Length".into(), body.len().to_string()));
            if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
                headers.push(("Content-Type".into(), "application/octet-stream".into()));
            }
        }
        let mut query = Zeroizing::new(String::new());
        for (name, value) in &operation.query {
            let sign = if query.is_empty() { '?' } else { '&' };
            query.push(sign);
            query.push_str(&format!("{name}={}", encoded(value, false)));
        }
        let mut sent: Vec<(String, Zeroizing<String>)> =
            headers.iter().map(|(name, value)| (name.clone(), Zeroizing::new(value.clone()))).collect();
        match &self.credential {
            Credential::Key(key) => {
                let text = text_to_sign(self.name(), operation.method, &path, &operation.query, &headers);
                sent.push(("Authorization".into(), authorization(self.name(), key, &text)));
            }
            Credential::Sas(sas) => {
                let sign = if query.is_empty() { '?' } else { '&' };
                query.push(sign);
                query.push_str(&sas.query());
            }
            Credential::Entra(tokens) => {
                let value = tokens.authorization().map_err(|problem| {
                    let failure = Failure { status: Some(401), ..Failure::unanswered(name, problem.what) };
                    (Failure { code: "NoToken".into(), ..failure }, None)
                })?;
                sent.push(("Authorization".into(), value));
            }
        }
        let url = self.endpoint.url();
        let origin = format!(
            "{}://{}{}",
            url.scheme(),
            url.host_str().unwrap_or_default(),
            url.port().map(|port| format!(":{port}")).unwrap_or_default()
        );
        let uri = Zeroizing::new(format!("{origin}{path}{}", *query));
        let request = Request { method: operation.method, uri, name, headers: sent, body: operation.body };
        self.http.once(&request).map_err(|failure| (failure, None))
    }

    /// Sends until it is answered; `read` takes what it wants of a good answer, as part of the try.
    fn run<T>(
        &self,
        operation: &Operation<'_>,
        mut read: impl FnMut(&mut Answer) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let place = [operation.container, operation.blob].into_iter().filter(|part| !part.is_empty());
        let name = format!("{} {}", operation.method, place.collect::<Vec<_>>().join("/"));
        let mut renewed = false;
        self.http.persist(|_| {
            loop {
                let mut answer = self.once(operation, &name)?;
                if (200..300).contains(&answer.status) {
                    return read(&mut answer).map_err(|failure| (failure, None));
                }
                let failure = refused(&mut answer, &name);
                // A token may have been taken back before its time: one more, once.
                if let (Some(401), false, Credential::Entra(tokens)) = (failure.status, renewed, &self.credential) {
                    renewed = true;
                    if tokens.renew() {
                        continue;
                    }
                }
                return Err((failure, retry_after(&answer.headers)));
            }
        })
    }

    fn operation<'a>(method: &'a str, container: &'a str, blob: &'a str) -> Operation<'a> {
        let body = if matches!(method, "PUT" | "POST") { Some(&[][..]) } else { None };
        Operation { method, container, blob, query: Vec::new(), headers: Vec::new(), body }
    }

    /// Names of all containers that begin with `prefix`; those of the system too.
    ///
    /// # Errors
    /// The service does not answer, or refuses.
    pub fn containers(&self, prefix: &str) -> Result<Vec<String>, Failure> {
        let mut out = Vec::new();
        let mut marker = String::new();
        loop {
            let mut operation = Self::operation("GET", "", "");
            operation.query = vec![("comp", "list".into()), ("include", "system".into())];
            for (name, value) in [("prefix", prefix), ("marker", &marker)] {
                if !value.is_empty() {
                    operation.query.push((name, value.to_owned()));
                }
            }
            let (names, next) = self.run(&operation, |answer| parsed(answer, list::containers))?;
            out.extend(names);
            match next {
                Some(next) if next != marker => marker = next,
                _ => return Ok(out),
            }
        }
    }

    /// A page of a container's blobs that begin with `prefix`, from `marker` on.
    ///
    /// # Errors
    /// The service does not answer, or refuses.
    pub fn list(&self, container: &str, prefix: &str, include: Include, marker: Option<&str>) -> Result<Page, Failure> {
        let mut operation = Self::operation("GET", container, "");
        operation.query =
            vec![("restype", "container".into()), ("comp", "list".into()), ("maxresults", PAGE.to_string())];
        let include = include.words();
        for (name, value) in [("prefix", prefix), ("marker", marker.unwrap_or_default()), ("include", &include)] {
            if !value.is_empty() {
                operation.query.push((name, value.to_owned()));
            }
        }
        self.run(&operation, |answer| parsed(answer, list::blobs))
    }

    /// Every blob of a container that begins with `prefix`, page by page.
    ///
    /// # Errors
    /// The service does not answer, or refuses; and what `each` says.
    pub fn each<E: From<Failure>>(
        &self,
        container: &str,
        prefix: &str,
        include: Include,
        mut each: impl FnMut(list::Blob) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut marker: Option<String> = None;
        loop {
            let page = self.list(container, prefix, include, marker.as_deref())?;
            page.blobs.into_iter().try_for_each(&mut each)?;
            match page.next {
                Some(next) if marker.as_ref() != Some(&next) => marker = Some(next),
                _ => return Ok(()),
            }
        }
    }

    /// Makes a container.
    ///
    /// # Errors
    /// The service does not answer, or refuses: also when it is there.
    pub fn create_container(&self, container: &str) -> Result<(), Failure> {
        let mut operation = Self::operation("PUT", container, "");
        operation.query = vec![("restype", "container".into())];
        self.run(&operation, |_| Ok(()))
    }

    /// Time of the service's clock when it answered a request for the container's properties; the container is made
    /// if it is missing.
    ///
    /// # Errors
    /// The service does not answer, or refuses.
    pub fn ready_container(&self, container: &str) -> Result<Option<jiff::Timestamp>, Failure> {
        let mut operation = Self::operation("PUT", container, "");
        operation.query = vec![("restype", "container".into())];
        match self.run(&operation, |answer| Ok(clock(answer))) {
            Ok(at) => return Ok(at),
            // Those that may write in a container, and make none, still find it.
            Err(failure) if failure.status == Some(409) || failure.is_denied() => {}
            Err(failure) => return Err(failure),
        }
        let mut operation = Self::operation("HEAD", container, "");
        operation.query = vec![("restype", "container".into())];
        self.run(&operation, |answer| Ok(clock(answer)))
    }

    /// Deletes a blob that has no snapshots.
    ///
    /// # Errors
    /// The service does not answer, or refuses.
    pub fn delete(&self, container: &str, blob: &str, condition: &Condition) -> Result<(), Failure> {
        let mut operation = Self::operation("DELETE", container, blob);
        operation.headers = condition.headers();
        self.run(&operation, |_| Ok(()))
    }

    /// Takes a snapshot of a blob, leased or not; returns its time, which names it.
    ///
    /// # Errors
    /// The service does not answer, or refuses.
    pub fn snapshot(&self, container: &str, blob: &str) -> Result<String, Failure> {
        let mut operation = Self::operation("PUT", container, blob);
        operation.query = vec![("comp", "snapshot".into())];
        self.run(&operation, |answer| Ok(answer.header("x-ms-snapshot").unwrap_or_default().to_owned()))
    }

    /// Deletes a snapshot of a blob; the blob stays.
    ///
    /// # Errors
    /// The service does not answer, or refuses.
    pub fn delete_snapshot(&self, container: &str, blob: &str, snapshot: &str) -> Result<(), Failure> {
        let mut operation = Self::operation("DELETE", container, blob);
        operation.query = vec![("snapshot", snapshot.to_owned())];
        self.run(&operation, |_| Ok(()))
    }

    /// Properties and metadata of a blob, or of a snapshot of it.
    ///
    /// # Errors
    /// The service does not answer, or refuses.
    pub fn facts(&self, container: &str, blob: &str, snapshot: Option<&str>) -> Result<Facts, Failure> {
        let mut operation = Self::operation("HEAD", container, blob);
        operation.query.extend(snapshot.map(|snapshot| ("snapshot", snapshot.to_owned())));
        self.run(&operation, |answer| {
            let own = |name: &str| answer.header(name).map(str::to_owned);
            Ok(Facts {
                length: answer.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0),
                kind: answer.header("x-ms-blob-type").and_then(BlobKind::parse).unwrap_or_default(),
                etag: own("etag").unwrap_or_default(),
                tier: own("x-ms-access-tier"),
                last_modified: own("last-modified").unwrap_or_default(),
                settings: Settings {
                    content_type: own("content-type"),
                    content_encoding: own("content-encoding"),
                    content_language: own("content-language"),
                    cache_control: own("cache-control"),
                    md5: answer.header("content-md5").and_then(md5),
                    metadata: metadata(&answer.headers),
                },
            })
        })
    }

    /// Fills `out` with a blob's bytes from `offset` on.
    ///
    /// # Errors
    /// The service does not answer, or refuses; when fewer bytes come.
    pub fn read(
        &self,
        (container, blob, snapshot): (&str, &str, Option<&str>),
        offset: u64,
        out: &mut [u8],
        condition: &Condition,
    ) -> Result<Got, Failure> {
        if out.is_empty() {
            return Ok(Got::default());
        }
        let mut operation = Self::operation("GET", container, blob);
        operation.query.extend(snapshot.map(|snapshot| ("snapshot", snapshot.to_owned())));
        operation.headers = condition.headers();
        let last = offset + out.len() as u64 - 1;
        operation.headers.push(("x-ms-range".into(), format!("bytes={offset}-{last}")));
        let name = format!("GET {container}/{blob}");
        self.run(&operation, |answer| {
            // A range that is not kept to would be other bytes.
            let range = answer.header("content-range").map(str::to_owned);
            let wanted = format!("bytes {offset}-{last}/");
            if answer.status != 206 || !range.as_deref().is_some_and(|range| range.starts_with(&wanted)) {
                let what = format!("bytes {offset} to {last} were requested, the answer is {}", answer.status);
                let failure = Failure::unanswered(&name, what);
                return Err(Failure { status: Some(416), code: "OtherRange".into(), ..failure });
            }
            answer.fill(out)?;
            Ok(Got {
                etag: answer.header("etag").unwrap_or_default().to_owned(),
                md5: answer.header("x-ms-blob-content-md5").and_then(md5),
                length: range.as_deref().and_then(|range| range.rsplit('/').next()?.parse().ok()),
            })
        })
    }

    /// A whole blob of at most `len_max` bytes.
    ///
    /// # Errors
    /// The service does not answer, or refuses; when it is longer.
    pub fn read_whole(&self, container: &str, blob: &str, len_max: u64) -> Result<Vec<u8>, Failure> {
        let operation = Self::operation("GET", container, blob);
        self.run(&operation, |answer| answer.bytes(len_max))
    }

    fn put(
        &self,
        (container, blob): (&str, &str),
        query: Vec<(&'static str, String)>,
        mut headers: Vec<(String, String)>,
        content: Content<'_>,
        condition: &Condition,
    ) -> Result<String, Failure> {
        let mut operation = Self::operation("PUT", container, blob);
        headers.extend(condition.headers());
        headers.extend(content.md5.map(|md5| ("Content-MD5".to_owned(), coded(&md5))));
        (operation.query, operation.headers, operation.body) = (query, headers, Some(content.bytes));
        self.run(&operation, |answer| Ok(answer.header("etag").unwrap_or_default().to_owned()))
    }

    /// Writes a block blob in one go; gives its ETag.
    ///
    /// # Errors
    /// The service does not answer, or refuses: also when the content is not what its MD5 says.
    pub fn put_blob(
        &self,
        container: &str,
        blob: &str,
        content: Content<'_>,
        settings: &Settings,
        condition: &Condition,
    ) -> Result<String, Failure> {
        let mut headers = settings.headers();
        headers.push(("x-ms-blob-type".into(), BlobKind::Block.word().into()));
        self.put((container, blob), Vec::new(), headers, content, condition)
    }

    /// Sends a block, whose `id` is in base64.
    ///
    /// # Errors
    /// As [`Account::put_blob`].
    pub fn put_block(
        &self,
        container: &str,
        blob: &str,
        id: &str,
        content: Content<'_>,
        lease: Option<&str>,
    ) -> Result<(), Failure> {
        let query = vec![("comp", "block".to_owned()), ("blockid", id.to_owned())];
        let condition = Condition { lease: lease.map(str::to_owned), ..Condition::default() };
        self.put((container, blob), query, Vec::new(), content, &condition).map(drop)
    }

    /// Makes a blob of blocks, in this order, each by its latest content. Properties and metadata that are not named here
    /// are gone.
    ///
    /// # Errors
    /// As [`Account::put_blob`].
    pub fn put_block_list(
        &self,
        container: &str,
        blob: &str,
        ids: &[Part],
        settings: &Settings,
        condition: &Condition,
    ) -> Result<String, Failure> {
        let mut text = String::from("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>");
        for id in ids {
            // Base64 has nothing to escape.
            text.push_str(&format!("<Latest>{id}</Latest>"));
        }
        text.push_str("</BlockList>");
        let mut headers = settings.headers();
        headers.push(("Content-Type".into(), "application/xml".into()));
        let content = Content { bytes: text.as_bytes(), md5: None };
        self.put((container, blob), vec![("comp", "blocklist".into())], headers, content, condition)
    }

    /// Committed blocks in their order: ids and lengths; `is_committed` false: those that wait.
    ///
    /// # Errors
    /// The service does not answer, or refuses.
    pub fn block_list(
        &self,
        (container, blob, snapshot): (&str, &str, Option<&str>),
        is_committed: bool,
    ) -> Result<Vec<(Part, u64)>, Failure> {
        let kind = if is_committed { "committed" } else { "uncommitted" };
        let mut operation = Self::operation("GET", container, blob);
        operation.query = vec![("comp", "blocklist".into()), ("blocklisttype", kind.into())];
        operation.query.extend(snapshot.map(|snapshot| ("snapshot", snapshot.to_owned())));
        let list = if is_committed { "CommittedBlocks" } else { "UncommittedBlocks" };
        self.run(&operation, |answer| parsed(answer, |bytes| list::blocks(bytes, list)))
    }

    /// Committed blocks in their order, and those that wait: ids and lengths.
    ///
    /// # Errors
    /// The service does not answer, or refuses: also when there is no blob, and no block for one.
    pub fn all_blocks(&self, container: &str, blob: &str) -> Result<[Vec<(Part, u64)>; 2], Failure> {
        let mut operation = Self::operation("GET", container, blob);
        operation.query = vec![("comp", "blocklist".into()), ("blocklisttype", "all".into())];
        self.run(&operation, |answer| {
            parsed(answer, |bytes| {
                Ok([list::blocks(bytes, "CommittedBlocks")?, list::blocks(bytes, "UncommittedBlocks")?])
            })
        })
    }

    /// Sets all properties of a blob, its content's hash too: those that are not named are gone.
    ///
    /// # Errors
    /// The service does not answer, or refuses.
    pub fn set_properties(
        &self,
        container: &str,
        blob: &str,
        settings: &Settings,
        condition: &Condition,
    ) -> Result<(), Failure> {
        let settings = Settings { metadata: Vec::new(), ..settings.clone() };
        let content = Content { bytes: &[], md5: None };
        let query = vec![("comp", "properties".to_owned())];
        self.put((container, blob), query, settings.headers(), content, condition).map(drop)
    }

    /// Sets all metadata of a blob.
    ///
    /// # Errors
    /// The service does not answer, or refuses.
    pub fn set_metadata(
        &self,
        container: &str,
        blob: &str,
        metadata: &[(String, String)],
        condition: &Condition,
    ) -> Result<(), Failure> {
        let settings = Settings { metadata: metadata.to_vec(), ..Settings::default() };
        let content = Content { bytes: &[], md5: None };
        let query = vec![("comp", "metadata".to_owned())];
        self.put((container, blob), query, settings.headers(), content, condition).map(drop)
    }

    /// Makes a page blob of zeros.
    ///
    /// # Errors
    /// As [`Account::put_blob`].
    pub fn create_pages(
        &self,
        container: &str,
        blob: &str,
        length: u64,
        settings: &Settings,
        condition: &Condition,
    ) -> Result<String, Failure> {
        let mut headers = settings.headers();
        headers.push(("x-ms-blob-type".into(), BlobKind::Page.word().into()));
        headers.push(("x-ms-blob-content-length".into(), length.to_string()));
        self.put((container, blob), Vec::new(), headers, Content { bytes: &[], md5: None }, condition)
    }

    /// Writes pages from `offset` on: whole ones, and 4 MiB at most.
    ///
    /// # Errors
    /// As [`Account::put_blob`].
    pub fn put_pages(
        &self,
        container: &str,
        blob: &str,
        offset: u64,
        content: Content<'_>,
        condition: &Condition,
    ) -> Result<String, Failure> {
        let last = offset + content.bytes.len().max(1) as u64 - 1;
        let headers =
            vec![("x-ms-range".into(), format!("bytes={offset}-{last}")), ("x-ms-page-write".into(), "update".into())];
        self.put((container, blob), vec![("comp", "page".into())], headers, content, condition)
    }

    /// Ranges of a page blob that hold something.
    ///
    /// # Errors
    /// The service does not answer, or refuses.
    pub fn page_ranges(
        &self,
        (container, blob, snapshot): (&str, &str, Option<&str>),
    ) -> Result<Vec<PageRange>, Failure> {
        let mut out = Vec::new();
        let mut marker = String::new();
        loop {
            let mut operation = Self::operation("GET", container, blob);
            operation.query = vec![("comp", "pagelist".into())];
            operation.query.extend(snapshot.map(|snapshot| ("snapshot", snapshot.to_owned())));
            if !marker.is_empty() {
                operation.query.push(("marker", marker.clone()));
            }
            let (ranges, next) = self.run(&operation, |answer| parsed(answer, list::pages))?;
            out.extend(ranges);
            match next {
                Some(next) if next != marker => marker = next,
                _ => return Ok(out),
            }
        }
    }

    /// Acquires a lease on a blob, for `seconds` (15 to 60) or without end; returns its id. With `proposed`, the id is that
    /// one, and whoever holds a lease of that id already gets it again.
    ///
    /// # Errors
    /// The service does not answer, or refuses: also when the blob is leased already.
    pub fn lease(
        &self,
        container: &str,
        blob: &str,
        seconds: Option<u32>,
        proposed: Option<&str>,
    ) -> Result<String, Failure> {
        let duration = seconds.map_or("-1".to_owned(), |seconds| seconds.to_string());
        let mut headers = vec![("x-ms-lease-action", "acquire".to_owned()), ("x-ms-lease-duration", duration)];
        headers.extend(proposed.map(|id| ("x-ms-proposed-lease-id", id.to_owned())));
        self.lease_action(container, blob, &headers)
    }

    /// Renews a lease, which ends otherwise after its time.
    ///
    /// # Errors
    /// The service does not answer, or refuses: also when another client holds one.
    pub fn renew(&self, container: &str, blob: &str, lease: &str) -> Result<(), Failure> {
        let headers = [("x-ms-lease-action", "renew".to_owned()), ("x-ms-lease-id", lease.to_owned())];
        self.lease_action(container, blob, &headers).map(drop)
    }

    /// Releases a lease.
    ///
    /// # Errors
    /// The service does not answer, or refuses.
    pub fn release(&self, container: &str, blob: &str, lease: &str) -> Result<(), Failure> {
        let headers = [("x-ms-lease-action", "release".to_owned()), ("x-ms-lease-id", lease.to_owned())];
        self.lease_action(container, blob, &headers).map(drop)
    }

    fn lease_action(&self, container: &str, blob: &str, headers: &[(&str, String)]) -> Result<String, Failure> {
        let mut operation = Self::operation("PUT", container, blob);
        operation.query = vec![("comp", "lease".into())];
        operation.headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        self.run(&operation, |answer| Ok(answer.header("x-ms-lease-id").unwrap_or_default().to_owned()))
    }
}

/// The body of a good answer, in what `parse` makes of it; one that breaks off is tried again.
fn parsed<T>(answer: &mut Answer, parse: impl Fn(&[u8]) -> Result<T, list::Unclear>) -> Result<T, Failure> {
    let bytes = answer.bytes(ANSWER_MAX)?;
    parse(&bytes).map_err(|what| Failure::unanswered("the answer", format!("cannot be understood: {what}")))
}

/// The service's clock.
fn clock(answer: &Answer) -> Option<jiff::Timestamp> {
    jiff::fmt::rfc2822::parse(answer.header("date")?).ok().map(|at| at.timestamp())
}

/// Code and text of a refusal, from its header or its body.
fn refused(answer: &mut Answer, name: &str) -> Failure {
    let header = answer.header("x-ms-error-code").unwrap_or_default().to_owned();
    let said = answer.bytes(1 << 20).ok().and_then(|bytes| list::error(&bytes));
    let (code, message) = said.unwrap_or_default();
    let code = if code.is_empty() { header } else { code };
    Failure { status: Some(answer.status), code, message, request: name.to_owned(), is_stopped: false, earlier: 0 }
}

fn metadata(headers: &HeaderMap) -> Vec<(String, String)> {
    let mut out: Vec<(String, String)> = headers
        .iter()
        .filter_map(|(name, value)| {
            let name = name.as_str().strip_prefix("x-ms-meta-")?;
            Some((name.to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        })
        .collect();
    out.sort();
    out
}
