//! `google.protobuf.Struct` as JSON and back. What comes from outside is bounded before it is converted, and what JSON
//! cannot say is refused.

use prost::Message as _;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use serde_json::{Map, Number, Value as Json};

use crate::domain::settings::json_object;

/// Bytes of a message that may be worth converting: what 16 KiB of JSON take at most, with room to spare.
const WIRE_BYTES: usize = 128 * 1024;

/// How deep a conversion goes; the domain's own bound is a little lower.
const DEPTH: usize = 40;

/// The largest whole number up to which every one is its own double.
const WHOLE: f64 = 9_007_199_254_740_992.0;

/// A message as a JSON object: at most 16 KiB and 32 deep; empty when absent.
///
/// # Errors
/// What is wrong with it, as a sentence for the field.
pub(super) fn object(message: Option<Struct>) -> Result<Map<String, Json>, &'static str> {
    let Some(message) = message else { return Ok(Map::new()) };
    if message.encoded_len() > WIRE_BYTES {
        return Err("must be at most 16 KiB of JSON");
    }
    let object = fields(message, 0)?;
    json_object(&object)?;
    Ok(object)
}

fn fields(message: Struct, depth: usize) -> Result<Map<String, Json>, &'static str> {
    message.fields.into_iter().map(|(key, value)| Ok((key, json(value, depth)?))).collect()
}

fn json(value: Value, depth: usize) -> Result<Json, &'static str> {
    if depth > DEPTH {
        return Err("must be at most 32 deep");
    }
    match value.kind {
        None | Some(Kind::NullValue(_)) => Ok(Json::Null),
        Some(Kind::BoolValue(value)) => Ok(value.into()),
        Some(Kind::StringValue(text)) => Ok(text.into()),
        Some(Kind::NumberValue(number)) => number_of(number).map(Json::Number),
        Some(Kind::StructValue(inner)) => fields(inner, depth + 1).map(Json::Object),
        Some(Kind::ListValue(list)) => {
            list.values.into_iter().map(|value| json(value, depth + 1)).collect::<Result<_, _>>().map(Json::Array)
        }
    }
}

/// Whole numbers as such, so that 5 does not come back as 5.0.
fn number_of(number: f64) -> Result<Number, &'static str> {
    if number.fract() == 0.0 && number.abs() <= WHOLE {
        #[expect(clippy::cast_possible_truncation, reason = "it is whole, and within 2^53")]
        return Ok((number as i64).into());
    }
    Number::from_f64(number).ok_or("must not hold NaN or an infinite number: JSON has none")
}

/// A JSON object as a message.
pub(super) fn message(object: &Map<String, Json>) -> Struct {
    Struct { fields: object.iter().map(|(key, value)| (key.clone(), of_json(value))).collect() }
}

fn of_json(value: &Json) -> Value {
    let kind = match value {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(*value),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Json::String(text) => Kind::StringValue(text.clone()),
        Json::Array(values) => Kind::ListValue(ListValue { values: values.iter().map(of_json).collect() }),
        Json::Object(object) => Kind::StructValue(message(object)),
    };
    Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Any JSON that doubles can say.
    fn any_json() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            any::<i32>().prop_map(Json::from),
            any::<f64>().prop_map(Json::from),
            ".{0,8}".prop_map(Json::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
                prop::collection::btree_map(".{0,4}", inner, 0..4)
                    .prop_map(|map| Json::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(value in any_json()) {
            let object = Map::from_iter([("x".to_owned(), value)]);
            let sent = message(&object);
            let read = super::object(Some(sent.clone())).unwrap();
            prop_assert_eq!(message(&read), sent);
        }
    }

    #[test]
    fn what_json_cannot_say_is_refused() {
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let value = Value { kind: Some(Kind::NumberValue(number)) };
            let list = Value { kind: Some(Kind::ListValue(ListValue { values: vec![value] })) };
            assert!(object(Some(Struct { fields: [("x".to_owned(), list)].into() })).is_err());
        }
        assert_eq!(object(None).unwrap(), Map::new());
        let whole = Struct { fields: [("x".to_owned(), Value { kind: Some(Kind::NumberValue(5.0)) })].into() };
        assert_eq!(Json::Object(object(Some(whole)).unwrap()).to_string(), r#"{"x":5}"#);
    }

    #[test]
    fn depth_and_size_are_bounded_before_the_conversion() {
        let nested = |depth: usize| {
            let object = (1..depth).fold(json!({}), |inner, _| json!({ "a": inner }));
            message(object.as_object().unwrap())
        };
        assert!(object(Some(nested(32))).is_ok());
        assert_eq!(object(Some(nested(33))), Err("must be at most 32 deep"));
        // As deep as the wire lets through.
        assert_eq!(object(Some(nested(90))), Err("must be at most 32 deep"));
        let long = json!({ "x": "y".repeat(1024 * 1024) });
        assert_eq!(object(Some(message(long.as_object().unwrap()))), Err("must be at most 16 KiB of JSON"));
    }
}
