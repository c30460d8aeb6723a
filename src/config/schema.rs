//! The JSON Schema of the settings, from the types that read them.

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::raw::Raw;

/// JSON Schema (2020-12) of the settings file, as committed in `config/sluice.schema.json`.
///
/// It holds what a schema can hold (keys, types, forms, choices); what one key says of another is checked at loading.
pub fn schema() -> Value {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Raw>().to_value();
    without_null(&mut schema);
    schema
}

/// TOML has no null: an optional key is one that may be missing, so every mention of null goes.
fn without_null(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(without_null),
        Value::Object(members) => {
            members.values_mut().for_each(without_null);
            members.retain(|name, value| name != "default" || !value.is_null());
            if let Some(Value::Object(default)) = members.get_mut("default") {
                default.retain(|_, value| !value.is_null());
            }
            if let Some(Value::Array(types)) = members.get_mut("type") {
                types.retain(|name| name != "null");
                if let [one] = types.as_slice() {
                    members["type"] = one.clone();
                }
            }
            for union in ["anyOf", "enum"] {
                let Some(Value::Array(choices)) = members.get_mut(union) else { continue };
                choices.retain(|choice| !choice.is_null() && choice["type"] != "null");
                if union == "anyOf"
                    && let [Value::Object(one)] = choices.as_slice()
                {
                    let one = one.clone();
                    members.remove(union);
                    members.extend(one);
                }
            }
        }
        _ => {}
    }
}
