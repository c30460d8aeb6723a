//! Resources made from R4's definitions: any members, with values of the right JSON type and often no sense. What the
//! invariants name between quotes is among their texts, so that some hold and some are broken.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::corpus::Element;

/// Objects within objects.
const DEPTH_MAX: u32 = 5;

/// Makes them; the same in each run.
pub struct Maker<'e> {
    elements: &'e BTreeMap<String, Element>,
    children: BTreeMap<&'e str, Vec<(&'e str, &'e Element)>>,
    state: u64,
    texts: Vec<String>,
}

impl<'e> Maker<'e> {
    pub fn new(elements: &'e BTreeMap<String, Element>) -> Self {
        let mut children: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for (path, element) in elements {
            if let Some((parent, name)) = path.rsplit_once('.') {
                children.entry(parent).or_default().push((name, element));
            }
        }
        Self { elements, children, state: 1, texts: Vec::new() }
    }

    pub fn resource(&mut self, resource_type: &str) -> Value {
        let below = format!("{resource_type}.");
        let constraints = self.elements.iter().filter(|(path, _)| *path == resource_type || path.starts_with(&below));
        let expressions = constraints.flat_map(|(_, element)| &element.constraints).map(|(_, expression)| expression);
        let quoted = expressions.flat_map(|text| text.split('\'').skip(1).step_by(2));
        self.texts = quoted.filter(|text| !text.contains('\\')).map(str::to_owned).collect();
        self.texts.extend(["a", "Name", "x.y", "#", "1"].map(str::to_owned));
        let mut made = self.object(resource_type, 0);
        made["resourceType"] = json!(resource_type);
        made
    }

    fn object(&mut self, path: &str, depth: u32) -> Value {
        let mut members = Map::new();
        for (name, element) in self.children.get(path).cloned().unwrap_or_default() {
            // All at the top, or deep places would hardly ever come.
            let wanted = if depth == 0 { 2 } else { 3 };
            let is_rare = matches!(name, "extension" | "modifierExtension" | "contained" | "meta" | "language");
            if is_rare || self.below(wanted + 1) >= 2 {
                continue;
            }
            let Some(ty) = element.types.get(self.below(element.types.len().max(1) as u64) as usize) else {
                let Some(content) = element.content() else { continue };
                if depth < DEPTH_MAX {
                    let item = self.object(content, depth + 1);
                    members.insert(name.to_owned(), self.repeated(element, item));
                }
                continue;
            };
            let member = match name.strip_suffix("[x]") {
                Some(stem) => format!("{stem}{}{}", ty[..1].to_ascii_uppercase(), &ty[1..]),
                None => name.to_owned(),
            };
            let item = match ty.as_str() {
                "BackboneElement" | "Element" => self.nested(&format!("{path}.{name}"), depth),
                ty => self.value(ty, depth),
            };
            if let Some(item) = item {
                members.insert(member, self.repeated(element, item));
            }
        }
        // An empty object is no element.
        members.entry("id").or_insert(json!("i"));
        Value::Object(members)
    }

    fn nested(&mut self, path: &str, depth: u32) -> Option<Value> {
        (depth < DEPTH_MAX).then(|| self.object(path, depth + 1))
    }

    fn value(&mut self, ty: &str, depth: u32) -> Option<Value> {
        Some(match ty {
            "boolean" => json!(self.below(2) == 0),
            "integer" | "unsignedInt" | "positiveInt" => json!(self.below(4)),
            "decimal" => json!(self.below(40) as f64 / 4.0),
            "date" => json!(["2020-01-01", "2021", "2020-06"][self.below(3) as usize]),
            "dateTime" => {
                json!(["2020-01-01", "2020-01-01T10:00:00Z", "2021-05-05T00:00:00+02:00"][self.below(3) as usize])
            }
            "instant" => json!("2020-01-01T10:00:00Z"),
            "time" => json!("10:00:00"),
            "base64Binary" => json!("aGVsbG8="),
            "xhtml" | "Resource" => return None,
            ty if self.children.contains_key(ty) && ty.starts_with(|c: char| c.is_ascii_uppercase()) => {
                return self.nested(ty, depth);
            }
            _ => {
                let at = self.below(self.texts.len() as u64) as usize;
                json!(self.texts[at])
            }
        })
    }

    fn repeated(&mut self, element: &Element, item: Value) -> Value {
        match (element.repeats, self.below(3)) {
            (false, _) => item,
            (true, 0) => json!([item.clone(), item]),
            (true, _) => json!([item]),
        }
    }

    fn below(&mut self, end: u64) -> u64 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) % end
    }
}
