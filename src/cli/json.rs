//! Messages as JSON, by their descriptors: what scripts read, with the contract's own names, and what operators write in
//! files. A field that is added to the contract appears by itself.

use std::sync::LazyLock;

use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage as _, Value,
};
use serde::ser::{Error as _, SerializeMap as _};
use serde::{Serialize, Serializer};
use serde_json::Value as Json;

use super::CliError;
use crate::rpc::DESCRIPTORS;

/// The contract.
static CONTRACT: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(DESCRIPTORS).unwrap_or_else(|_| DescriptorPool::new()));

/// The descriptor of a message of ours, such as `Tenant`.
///
/// # Errors
/// `Failed` when the contract has no such message.
pub(super) fn descriptor(name: &str) -> Result<MessageDescriptor, CliError> {
    let found = CONTRACT.get_message_by_name(&format!("tenantry.v1.{name}"));
    found.ok_or_else(|| CliError::Failed(format!("the contract has no message {name}")))
}

/// A message of ours with its descriptor, as one can walk it.
pub(super) fn dynamic(name: &str, message: &impl Message) -> Result<DynamicMessage, CliError> {
    let bytes = message.encode_to_vec();
    DynamicMessage::decode(descriptor(name)?, bytes.as_slice()).map_err(|e| CliError::Failed(format!("{name}: {e}")))
}

/// A message as one line. Every field of the contract is there under its own name, in the contract's order; what is absent,
/// empty or not said is `null`; enums are their last words in lower case, times RFC 3339.
pub(super) fn line(name: &str, message: &impl Message) -> Result<String, CliError> {
    let shown = dynamic(name, message)?;
    serde_json::to_string(&Shown(&shown)).map_err(|e| CliError::Failed(format!("{name}: {e}")))
}

/// A message of ours from JSON, whose field names may be written either way; unknown ones are refused.
///
/// # Errors
/// What is wrong, with line and column.
pub(super) fn read<M: Message + Default>(name: &str, text: &str) -> Result<M, CliError> {
    let mut json = serde_json::Deserializer::from_str(text);
    let wrong = |e: serde_json::Error| CliError::Argument(e.to_string());
    let message = DynamicMessage::deserialize(descriptor(name)?, &mut json).map_err(wrong)?;
    json.end().map_err(wrong)?;
    message.transcode_to().map_err(|e| CliError::Failed(format!("{name}: {e}")))
}

/// Whether a field's message is one of ours, which has fields of its own to name; of Google's each is a value.
pub(super) fn of_ours(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    match field.kind() {
        Kind::Message(inner) if !field.is_list() && inner.full_name().starts_with("tenantry.") => Some(inner),
        _ => None,
    }
}

/// A message in the contract's own words.
struct Shown<'a>(&'a DynamicMessage);

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let descriptor = self.0.descriptor();
        if descriptor.full_name() == "google.protobuf.FieldMask" {
            let paths = self.0.get_field_by_name("paths");
            let paths = paths.as_deref().and_then(Value::as_list).unwrap_or_default();
            return paths.iter().filter_map(Value::as_str).collect::<Vec<_>>().serialize(serializer);
        }
        if descriptor.full_name().starts_with("google.") {
            return whole(serde_json::to_value(self.0).map_err(S::Error::custom)?).serialize(serializer);
        }
        let mut map = serializer.serialize_map(None)?;
        for field in descriptor.fields() {
            map.serialize_entry(field.name(), &Field(self.0, &field))?;
        }
        map.end()
    }
}

/// A field of a message.
struct Field<'a>(&'a DynamicMessage, &'a FieldDescriptor);

impl Serialize for Field<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(message, field) = self;
        if field.supports_presence() && !message.has_field(field) {
            return serializer.serialize_none();
        }
        Item(&message.get_field(field), &field.kind()).serialize(serializer)
    }
}

/// A value of a kind.
struct Item<'a>(&'a Value, &'a Kind);

impl Serialize for Item<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::List(list) => serializer.collect_seq(list.iter().map(|value| Item(value, self.1))),
            Value::Message(message) => Shown(message).serialize(serializer),
            Value::String(text) if text.is_empty() => serializer.serialize_none(),
            Value::String(text) => serializer.serialize_str(text),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::I32(number) => serializer.serialize_i32(*number),
            Value::I64(number) => serializer.serialize_i64(*number),
            Value::U32(number) => serializer.serialize_u32(*number),
            Value::U64(number) => serializer.serialize_u64(*number),
            Value::F64(number) => serializer.serialize_f64(*number),
            Value::EnumNumber(number) => match word(self.1, *number) {
                Some(word) => serializer.serialize_str(&word),
                None if *number == 0 => serializer.serialize_none(),
                None => serializer.serialize_i32(*number),
            },
            Value::Map(entries) => {
                let Kind::Message(entry) = self.1 else { return Err(S::Error::custom("a map without entries")) };
                let kind = entry.map_entry_value_field().kind();
                let mut sorted: Vec<_> =
                    entries.iter().filter_map(|(key, value)| Some((key.as_str()?, value))).collect();
                sorted.sort_by_key(|(key, _)| *key);
                serializer.collect_map(sorted.into_iter().map(|(key, value)| (key, Item(value, &kind))))
            }
            Value::F32(_) | Value::Bytes(_) => Err(S::Error::custom("the contract has no such field")),
        }
    }
}

/// The last words of an enum's value; none for "not said", and for numbers of a server newer than this program.
fn word(kind: &Kind, number: i32) -> Option<String> {
    let of = kind.as_enum()?;
    let prefix = of.get_value(0)?.name().strip_suffix("UNSPECIFIED").map(str::to_owned)?;
    let value = of.get_value(number).filter(|value| value.number() != 0)?;
    Some(value.name().trim_start_matches(&prefix).to_ascii_lowercase())
}

/// JSON whose whole numbers look like it: 5, not 5.0.
fn whole(json: Json) -> Json {
    match json {
        Json::Number(number) => match number.as_f64() {
            #[expect(clippy::cast_possible_truncation, reason = "it is whole, and within 2^53")]
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 9e15 => Json::from(float as i64),
            _ => Json::Number(number),
        },
        Json::Array(items) => items.into_iter().map(whole).collect(),
        Json::Object(fields) => Json::Object(fields.into_iter().map(|(key, value)| (key, whole(value))).collect()),
        other => other,
    }
}

/// A value for people, on one line; none when it is empty.
pub(super) fn cell(message: &DynamicMessage, field: &FieldDescriptor) -> Option<String> {
    match serde_json::to_value(Field(message, field)).ok()? {
        Json::Null => None,
        Json::String(text) => Some(text),
        Json::Array(items) if items.is_empty() => None,
        Json::Array(items) if items.iter().all(Json::is_string) => {
            Some(items.iter().filter_map(Json::as_str).collect::<Vec<_>>().join(", "))
        }
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use prost_types::FieldMask;

    use super::*;
    use crate::rpc::v1;

    #[test]
    fn every_field_is_there_and_what_is_absent_is_null() {
        let tenant = v1::Tenant {
            slug: "acme".to_owned(),
            status: v1::TenantStatus::Suspended.into(),
            create_time: Some(prost_types::Timestamp { seconds: 0, nanos: 0 }),
            ..Default::default()
        };
        assert_eq!(
            line("Tenant", &tenant).unwrap(),
            r#"{"tenant_id":null,"slug":"acme","display_name":null,"status":"suspended","suspend_reason":null,"#
                .to_owned()
                + r#""plan":null,"create_time":"1970-01-01T00:00:00Z","update_time":null,"delete_time":null,"#
                + r#""purge_time":null,"etag":null,"suspend_cause":null,"plan_version":0,"verified":false,"demo":false,"#
                + r#""maintenance":false,"external_id":null,"trial_end_time":null}"#
        );
        let newer = v1::Tenant { status: 99, ..Default::default() };
        assert!(line("Tenant", &newer).unwrap().contains(r#""status":99"#));
    }

    #[test]
    fn what_is_written_is_read_and_what_is_unknown_refused() {
        let text = r#"{"branding": {"logoUrl": "https://a.example/l"}, "custom": {"a": [1, 2.5]}, "time_zone": "UTC"}"#;
        let settings: v1::Settings = read("Settings", text).unwrap();
        let answer = v1::GetSettingsResponse {
            settings: Some(settings),
            own_fields: Some(FieldMask { paths: vec!["branding.logo_url".to_owned()] }),
            etag: "7".to_owned(),
        };
        let shown: Json = serde_json::from_str(&line("GetSettingsResponse", &answer).unwrap()).unwrap();
        assert_eq!(shown["settings"]["custom"].to_string(), r#"{"a":[1,2.5]}"#);
        assert_eq!(shown["own_fields"][0], "branding.logo_url");
        let error = read::<v1::Settings>("Settings", r#"{"color": "red"}"#).unwrap_err();
        assert!(matches!(&error, CliError::Argument(text) if text.contains("color")), "{error}");
    }
}
