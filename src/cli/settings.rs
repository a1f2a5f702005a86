//! `tenantry settings`: what a tenant has chosen, and changes of it: by path on the command line, or from a file.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use prost_reflect::{Kind, MessageDescriptor};
use prost_types::FieldMask;
use serde_json::{Map, Value as Json};

use super::connect::repeatable;
use super::connect::{Connect, read};
use super::output::Output;
use super::table::table;
use super::{CliError, json, request_id};
use crate::rpc::v1::{GetSettingsRequest, GetSettingsResponse, Settings as Row, UpdateSettingsRequest};

/// Flags of `tenantry settings`.
#[derive(Args, Debug)]
pub(super) struct Settings {
    #[command(subcommand)]
    action: Action,

    /// Print JSON, for scripts: one object a line
    #[arg(long, global = true)]
    json: bool,

    #[command(flatten)]
    connect: Connect,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Show the settings of a tenant, and which of them it has set itself
    Show {
        /// Slug or id
        tenant: String,
    },
    /// Change settings of a tenant; the others stay
    Set(Set),
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tenantry settings set acme locale=de-DE time_zone=Europe/Berlin branding.primary_color=#3366cc
  tenantry settings set acme security.session_length=28800s security.sign_in_methods=password,oidc
  tenantry settings set acme locale=                      back to the default
  tenantry settings set acme custom='{\"classes\": 12}'     as a whole
  tenantry settings set acme --file settings.json         {\"branding\": {\"theme\": \"dark\"}}")]
struct Set {
    /// Slug or id
    tenant: String,
    /// What changes, by its path in the contract; without a value it goes back to the default
    #[arg(value_name = "KEY=VALUE", required_unless_present = "file", conflicts_with = "file")]
    pairs: Vec<String>,
    /// JSON file with what changes
    #[arg(long, value_name = "FILE.json")]
    file: Option<PathBuf>,
    /// The etag that was read; refused when the settings have changed since
    #[arg(long, default_value = "", hide_default_value = true)]
    etag: String,
}

impl Settings {
    /// Connects, does it, and writes the outcome to `out`.
    pub(super) async fn run(self, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
        let mut out = Output { json: self.json, to: out };
        let answer = match self.action {
            Action::Show { tenant } => {
                let mut client = self.connect.tenants().await?;
                client.get_settings(GetSettingsRequest { tenant }).await?.into_inner()
            }
            Action::Set(set) => {
                let (settings, paths) = match &set.file {
                    Some(path) => from_file("--file", path)?,
                    None => from_pairs(&set.pairs)?,
                };
                let client = self.connect.tenants().await?;
                let request = UpdateSettingsRequest {
                    tenant: set.tenant,
                    request_id: request_id(),
                    settings: Some(settings),
                    update_mask: Some(FieldMask { paths }),
                    etag: set.etag,
                };
                let answer = repeatable!(client.update_settings(request))?;
                GetSettingsResponse { settings: answer.settings, own_fields: answer.own_fields, etag: answer.etag }
            }
        };
        let shown = if self.json { String::new() } else { shown(&answer)? };
        out.one("GetSettingsResponse", &answer, |_| shown)
    }
}

/// Settings of a JSON file, with the paths of those that are in it.
pub(super) fn from_file(flag: &'static str, path: &Path) -> Result<(Row, Vec<String>), CliError> {
    let wrong = |error: String| CliError::Argument(format!("{flag} {}: {error}", path.display()));
    let text = String::from_utf8(read(flag, path)?).map_err(|_| wrong("is not UTF-8".to_owned()))?;
    let settings = json::read("Settings", &text).map_err(|error| wrong(error.to_string()))?;
    let object: Map<String, Json> = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let mut paths = Vec::new();
    name_paths(&json::descriptor("Settings")?, &object, "", &mut paths);
    Ok((settings, paths))
}

/// The paths of what is in an object that has been read, in the contract's spelling.
fn name_paths(of: &MessageDescriptor, object: &Map<String, Json>, above: &str, paths: &mut Vec<String>) {
    for (key, value) in object {
        let Some(field) = of.get_field_by_name(key).or_else(|| of.get_field_by_json_name(key)) else { continue };
        let path = format!("{above}{}", field.name());
        match (json::of_ours(&field), value) {
            (Some(inner), Json::Object(fields)) if !fields.is_empty() => {
                name_paths(&inner, fields, &format!("{path}."), paths);
            }
            _ => paths.push(path),
        }
    }
}

/// Settings of `branding.theme=dark` and the like, with their paths.
fn from_pairs(pairs: &[String]) -> Result<(Row, Vec<String>), CliError> {
    let mut object = Map::new();
    let mut paths = Vec::new();
    for pair in pairs {
        let Some((path, text)) = pair.split_once('=') else {
            return Err(CliError::Argument(format!("{pair}: KEY=VALUE is wanted, such as locale=de-DE")));
        };
        place(&mut object, &json::descriptor("Settings")?, path, text)
            .map_err(|problem| CliError::Argument(format!("{path}: {problem}")))?;
        paths.push(path.to_owned());
    }
    Ok((json::read("Settings", &Json::Object(object).to_string())?, paths))
}

/// Puts a value where its path leads.
fn place(object: &mut Map<String, Json>, of: &MessageDescriptor, path: &str, text: &str) -> Result<(), String> {
    let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
    let Some(field) = of.get_field_by_name(name) else {
        let names: Vec<_> = of.fields().map(|field| field.name().to_owned()).collect();
        return Err(format!("there is no {name}; there are {}", names.join(", ")));
    };
    let inner = json::of_ours(&field);
    let value = match (rest, inner) {
        (Some(rest), Some(inner)) => {
            let below = object.entry(name).or_insert_with(|| Json::Object(Map::new()));
            let Json::Object(below) = below else { return Err("is said twice".to_owned()) };
            return place(below, &inner, rest, text);
        }
        (Some(_), None) => return Err(format!("{name} is set as a whole")),
        _ if text.is_empty() => Json::Null,
        (None, _) => value(&field.kind(), field.is_list(), text)?,
    };
    if object.insert(name.to_owned(), value).is_some() {
        return Err("is said twice".to_owned());
    }
    Ok(())
}

/// A value as it is typed: text as it is, lists with commas, all else as JSON.
fn value(kind: &Kind, list: bool, text: &str) -> Result<Json, String> {
    match kind {
        Kind::String if list => Ok(text.split(',').map(|item| Json::from(item.trim())).collect()),
        Kind::String => Ok(text.into()),
        Kind::Message(message) if message.full_name() == "google.protobuf.Duration" => Ok(text.into()),
        _ => serde_json::from_str(text).map_err(|_| format!("{text} is not JSON, such as true, 12 or {{\"a\": 1}}")),
    }
}

/// A table of what is set, with by whom.
fn shown(answer: &GetSettingsResponse) -> Result<String, CliError> {
    let settings = json::dynamic("Settings", &answer.settings.clone().unwrap_or_default())?;
    let own = answer.own_fields.as_ref().map(|mask| mask.paths.as_slice()).unwrap_or_default();
    let mut rows = Vec::new();
    for field in prost_reflect::ReflectMessage::descriptor(&settings).fields() {
        let Some(inner) = json::of_ours(&field) else {
            rows.extend(json::cell(&settings, &field).map(|value| (field.name().to_owned(), value)));
            continue;
        };
        let below = settings.get_field(&field);
        let Some(below) = below.as_message() else { continue };
        for part in inner.fields().filter(|part| below.has_field(part)) {
            rows.extend(json::cell(below, &part).map(|value| (format!("{}.{}", field.name(), part.name()), value)));
        }
    }
    let by = |path: &str| own.iter().any(|own| own == path || path.starts_with(&format!("{own}.")));
    let rows = rows.into_iter().map(|(path, value)| {
        let from = if by(&path) { "tenant" } else { "default" };
        [path, value, from.to_owned()]
    });
    Ok(format!("{}\netag  {}", table(["setting", "value", "from"], rows), super::table::plain(&answer.etag)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[&str]) -> Result<(Row, Vec<String>), CliError> {
        from_pairs(&pairs.iter().map(|&pair| pair.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn paths_lead_to_their_fields() {
        let (settings, paths) = pairs(&[
            "locale=de-DE",
            "branding.theme=a=b",
            "branding.css=",
            "security.mfa_required=true",
            "security.session_length=28800s",
            "security.sign_in_methods=password, oidc",
            "custom={\"classes\": 12}",
        ])
        .unwrap();
        assert_eq!(paths[..3], ["locale", "branding.theme", "branding.css"]);
        let (branding, security) = (settings.branding.unwrap(), settings.security.unwrap());
        assert_eq!((branding.theme.as_str(), branding.css.as_str()), ("a=b", ""));
        assert!(security.mfa_required == Some(true) && security.session_length.unwrap().seconds == 28_800);
        assert_eq!(security.sign_in_methods, ["password", "oidc"]);
        assert_eq!(settings.custom.unwrap().fields.len(), 1);
    }

    #[test]
    fn what_leads_nowhere_is_told_with_what_there_is() {
        for (wrong, words) in [
            ("colour=red", "time_zone"),
            ("branding.logo=x", "logo_url"),
            ("custom.a=1", "as a whole"),
            ("locale", "KEY=VALUE"),
            ("security.mfa_required=maybe", "is not JSON"),
            ("security.session_length=long", "duration"),
        ] {
            let error = pairs(&[wrong]).unwrap_err();
            assert!(error.to_string().contains(words), "{wrong}: {error}");
            assert!(matches!(error, CliError::Argument(_)));
        }
        assert!(pairs(&["locale=a", "locale=b"]).unwrap_err().to_string().contains("twice"));
    }
}
