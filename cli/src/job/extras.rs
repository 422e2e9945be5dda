//! The customer's own key for the service's encryption of the drives' keys, the identity that may use it, and tags: the
//! tables `[encryption-key]`, `[identity]` and `[tags]` of a job's description.

use std::path::Path;

use dray_engine::report::{Kind, Problem, Problems};
use serde_json::{Map, Value, json};

use super::Api;

/// Limits of Azure's resources.
const TAGS_MAX: usize = 50;
const TAG_NAME_MAX: usize = 512;
const TAG_VALUE_MAX: usize = 256;

/// A key in a key vault (docs/spec/import-export.md#customer-managed-key).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultKey {
    /// Address of the key.
    pub url: String,
    /// Resource id of its vault.
    pub vault: String,
}

/// The identity by which the service uses the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The job's own.
    System,
    /// One that exists: its resource id.
    User(String),
}

/// What the three tables say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// The customer's key; otherwise Microsoft's is used.
    pub key: Option<VaultKey>,
    /// The identity that may use it.
    pub identity: Option<Identity>,
    /// Names and values.
    pub tags: Vec<(String, String)>,
}

/// Tables of the description.
pub const TABLES: [&str; 3] = ["encryption-key", "identity", "tags"];

impl Extras {
    /// Reads the tables, and checks them for `api`.
    pub fn read(path: &Path, api: Api, all: &toml::Table, problems: &mut Problems) -> Self {
        let mut reader = Reader { path, problems };
        let key = reader.table(all, "encryption-key", &["url", "vault"]).map(|table| VaultKey {
            url: reader.text(table, "encryption-key", "url"),
            vault: reader.text(table, "encryption-key", "vault"),
        });
        let identity = reader.table(all, "identity", &["type", "resource"]).and_then(|table| reader.identity(table));
        let tags = all.get("tags").and_then(toml::Value::as_table).map(|table| reader.tags(table)).unwrap_or_default();
        if all.get("tags").is_some_and(|tags| !tags.is_table()) {
            reader.wrong("tags", "is no table", "").advice_to("[tags], and its lines below it: project = \"archive\"");
        }
        if let Some(key) = &key {
            reader.key(key);
            if api == Api::DataBox && identity.is_none() && !all.contains_key("identity") {
                reader
                    .wrong("[encryption-key]", "no identity may use the key", "")
                    .advice_to("add [identity] with type = \"SystemAssigned\" or \"UserAssigned\"");
            }
        }
        if api == Api::ImportExport && all.contains_key("identity") {
            reader
                .wrong("[identity]", "the Import/Export API takes no identity", "")
                .advice_to("leave the table out, or create the job with --api data-box");
        }
        Self { key, identity, tags }
    }

    /// Adds them to the body of a new job.
    pub fn add_to(&self, api: Api, body: &mut Value) {
        if let Some(key) = &self.key {
            let mut value = json!({
                "kekType": "CustomerManaged", "kekUrl": key.url, "kekVaultResourceID": key.vault,
            });
            match api {
                Api::ImportExport => body["properties"]["encryptionKey"] = value,
                Api::DataBox => {
                    value["identityProperties"] = match &self.identity {
                        Some(Identity::User(id)) => {
                            json!({ "type": "UserAssigned", "userAssigned": { "resourceId": id } })
                        }
                        _ => json!({ "type": "SystemAssigned" }),
                    };
                    body["properties"]["details"]["keyEncryptionKey"] = value;
                }
            }
        }
        match &self.identity {
            Some(Identity::System) => body["identity"] = json!({ "type": "SystemAssigned" }),
            Some(Identity::User(id)) => {
                let ids = Map::from_iter([(id.clone(), json!({}))]);
                body["identity"] = json!({ "type": "UserAssigned", "userAssignedIdentities": ids });
            }
            None => {}
        }
        if !self.tags.is_empty() {
            let tags = self.tags.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str())));
            body["tags"] = Value::Object(tags.collect());
        }
    }
}

struct Reader<'a> {
    path: &'a Path,
    problems: &'a mut Problems,
}

/// The problem that was just reported.
struct Last<'a>(&'a mut Problems);

impl Last<'_> {
    fn advice_to(self, advice: &str) {
        if let Some(problem) = self.0.0.pop() {
            self.0.push(problem.advice(advice));
        }
    }
}

impl Reader<'_> {
    fn wrong(&mut self, column: &str, what: &str, value: &str) -> Last<'_> {
        let problem = Problem::new(Kind::Usage, what).path(self.path).column(column);
        self.problems.push(if value.is_empty() { problem } else { problem.value(value.to_owned()) });
        Last(self.problems)
    }

    fn table<'t>(&mut self, all: &'t toml::Table, name: &str, keys: &[&str]) -> Option<&'t toml::Table> {
        let value = all.get(name)?;
        let Some(table) = value.as_table() else {
            self.wrong(name, "is no table", "").advice_to("write the name in brackets, and its lines below it");
            return None;
        };
        for key in table.keys().filter(|key| !keys.contains(&key.as_str())) {
            let known = format!("known are {}", keys.join(", "));
            self.wrong(&format!("[{name}] {key}"), "is not known here", "").advice_to(&known);
        }
        Some(table)
    }

    fn text(&mut self, table: &toml::Table, name: &str, key: &str) -> String {
        match table.get(key).and_then(toml::Value::as_str).map(str::trim).filter(|text| !text.is_empty()) {
            Some(text) => text.to_owned(),
            None => {
                self.wrong(&format!("[{name}] {key}"), "is missing, or no text", "");
                String::new()
            }
        }
    }

    fn key(&mut self, key: &VaultKey) {
        let is_key =
            key.url.strip_prefix("https://").and_then(|rest| rest.split_once('/')).is_some_and(|(host, path)| {
                let mut parts = path.split('/');
                host.contains('.') && parts.next() == Some("keys") && parts.next().is_some_and(|name| !name.is_empty())
            });
        if !key.url.is_empty() && !is_key {
            self.wrong("[encryption-key] url", "is no address of a key", &key.url)
                .advice_to("https://VAULT.vault.azure.net/keys/NAME; `az keyvault key show --query key.kid` prints it");
        }
        let vault = key.vault.to_ascii_lowercase();
        let is_vault = vault.starts_with("/subscriptions/") && vault.contains("/providers/microsoft.keyvault/");
        if !vault.is_empty() && !is_vault {
            self.wrong("[encryption-key] vault", "is no resource id of a key vault", &key.vault)
                .advice_to("`az keyvault show --name VAULT --query id` prints it");
        }
    }

    fn identity(&mut self, table: &toml::Table) -> Option<Identity> {
        let kind = self.text(table, "identity", "type");
        match kind.to_ascii_lowercase().as_str() {
            "systemassigned" => Some(Identity::System),
            "userassigned" => {
                let id = self.text(table, "identity", "resource");
                let is_one = id.to_ascii_lowercase().contains("/providers/microsoft.managedidentity/");
                if !id.is_empty() && !is_one {
                    self.wrong("[identity] resource", "is no resource id of an identity", &id)
                        .advice_to("`az identity show --query id` prints it");
                }
                Some(Identity::User(id))
            }
            "" => None,
            _ => {
                self.wrong("[identity] type", "is no type of identity", &kind)
                    .advice_to("SystemAssigned, or UserAssigned with its resource");
                None
            }
        }
    }

    fn tags(&mut self, table: &toml::Table) -> Vec<(String, String)> {
        if table.len() > TAGS_MAX {
            self.wrong("[tags]", "a resource has 50 tags at most", &table.len().to_string());
        }
        let mut out = Vec::new();
        for (name, value) in table {
            let column = format!("[tags] {name}");
            let Some(value) = value.as_str() else {
                self.wrong(&column, "is no text", "").advice_to("write it in quotes");
                continue;
            };
            let is_name = name.chars().count() <= TAG_NAME_MAX && !name.contains(['<', '>', '%', '&', '\\', '?', '/']);
            if !is_name || value.chars().count() > TAG_VALUE_MAX {
                self.wrong(&column, "is no tag: 512 characters without <>%&\\?/, and a value of 256", "");
            }
            out.push((name.clone(), value.to_owned()));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &str = "[encryption-key]\nurl = \"https://v.vault.azure.net/keys/k/1\"\n\
                       vault = \"/subscriptions/s/resourceGroups/g/providers/Microsoft.KeyVault/vaults/v\"\n\
                       [tags]\nproject = \"archive\"\n";
    const USER: &str = "[identity]\ntype = \"UserAssigned\"\nresource = \
                        \"/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/i\"\n";

    fn read(api: Api, text: &str) -> (Extras, Vec<String>) {
        let mut problems = Problems::default();
        let extras = Extras::read(Path::new("job.toml"), api, &text.parse().expect("TOML"), &mut problems);
        (extras, problems.0.iter().map(|problem| problem.place.column.clone().unwrap_or_default()).collect())
    }

    #[test]
    fn each_api_takes_what_its_description_has() {
        let (extras, problems) = read(Api::ImportExport, ALL);
        assert_eq!(problems, [""; 0]);
        let mut body = json!({ "properties": {} });
        extras.add_to(Api::ImportExport, &mut body);
        assert_eq!(body["properties"]["encryptionKey"]["kekType"], "CustomerManaged");
        assert_eq!(body["tags"], json!({ "project": "archive" }));
        assert!(body.get("identity").is_none());
        let (extras, problems) = read(Api::DataBox, &format!("{ALL}{USER}"));
        assert_eq!(problems, [""; 0]);
        let mut body = json!({ "properties": { "details": {} } });
        extras.add_to(Api::DataBox, &mut body);
        let key = &body["properties"]["details"]["keyEncryptionKey"];
        assert!(key["identityProperties"]["userAssigned"]["resourceId"].as_str().is_some_and(|id| id.ends_with("/i")));
        assert_eq!(body["identity"]["type"], "UserAssigned");
        assert_eq!(body["identity"]["userAssignedIdentities"].as_object().map(Map::len), Some(1));
        assert_eq!(read(Api::ImportExport, ""), (Extras::default(), Vec::new()));
    }

    #[test]
    fn what_the_service_would_refuse_is_told() {
        assert_eq!(read(Api::ImportExport, USER).1, ["[identity]"]);
        assert_eq!(read(Api::DataBox, ALL).1, ["[encryption-key]"]);
        let wrong =
            "[encryption-key]\nurl = \"http://v/keys/k\"\nvault = \"v\"\nkek = 1\n[tags]\n\"a/b\" = \"x\"\nn = 1\n";
        let mut columns = read(Api::ImportExport, wrong).1;
        columns.sort();
        assert_eq!(
            columns,
            ["[encryption-key] kek", "[encryption-key] url", "[encryption-key] vault", "[tags] a/b", "[tags] n"]
        );
        assert_eq!(read(Api::DataBox, "[identity]\ntype = \"Own\"\n").1, ["[identity] type"]);
    }
}
