//! Changes to a document as an overlay: what is not touched is not copied until the changes are applied, and then byte
//! for byte.
//!
//! Takes nodes and JSON text, gives the changed document. Never checks the text it is given: whoever reads the result
//! parses it again.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::canonical;
use crate::tree::{Node, NodeId, Tree};

/// Changes to one tree.
#[derive(Clone, Debug, Default)]
pub struct Edits {
    /// What becomes of a value, the last word counting.
    values: BTreeMap<NodeId, Change>,
    /// What is added at the end of an object or array.
    added: BTreeMap<NodeId, Vec<Added>>,
}

#[derive(Clone, Debug)]
enum Change {
    Set(Vec<u8>),
    Remove,
}

#[derive(Clone, Debug)]
struct Added {
    name: Option<String>,
    json: Vec<u8>,
}

/// A stretch of the document and what stands there instead.
struct Splice {
    start: usize,
    end: usize,
    text: Vec<u8>,
}

impl Edits {
    /// No changes to this tree. All nodes given to the other functions must be of it.
    pub fn new(_tree: &Tree) -> Self {
        Self::default()
    }

    /// Puts a JSON text in place of a value.
    pub fn set(&mut self, node: Node<'_>, json: impl Into<Vec<u8>>) {
        self.values.insert(node.id(), Change::Set(json.into()));
    }

    /// Puts a string in place of a value.
    pub fn set_str(&mut self, node: Node<'_>, text: &str) {
        self.set(node, canonical::string(text));
    }

    /// Adds a member at the end of an object, which must not have one of this name.
    pub fn insert_member(&mut self, object: Node<'_>, name: &str, json: impl Into<Vec<u8>>) {
        self.added.entry(object.id()).or_default().push(Added { name: Some(name.to_owned()), json: json.into() });
    }

    /// Adds an item at the end of an array.
    pub fn append_item(&mut self, array: Node<'_>, json: Vec<u8>) {
        self.added.entry(array.id()).or_default().push(Added { name: None, json });
    }

    /// Takes a member with its name, or an item, out of what holds it. The root stays.
    pub fn remove(&mut self, node: Node<'_>) {
        if node.parent().is_some() {
            self.values.insert(node.id(), Change::Remove);
        }
    }

    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty() && self.added.is_empty()
    }

    /// The document with the changes; the very same bytes, without a copy, if there are none. A change within a value
    /// that is set or removed is dropped.
    pub fn apply(&self, tree: &Tree) -> Bytes {
        if self.is_empty() {
            return tree.bytes().clone();
        }
        let mut splices = Vec::with_capacity(self.values.len() + self.added.len());
        let mut reshaped: Vec<NodeId> = self.added.keys().copied().collect();
        for (&id, change) in &self.values {
            let node = tree.node(id);
            match change {
                Change::Set(json) => {
                    let span = node.span();
                    splices.push(Splice { start: span.start, end: span.end, text: json.clone() });
                }
                Change::Remove => reshaped.extend(node.parent().map(Node::id)),
            }
        }
        reshaped.sort_unstable();
        reshaped.dedup();
        for id in reshaped {
            self.reshape(tree.node(id), &mut splices);
        }
        // Of two that start together the longer is the outer one; additions, which are empty, come behind removals.
        splices.sort_by_key(|splice| (splice.start, std::cmp::Reverse(splice.end)));
        let document = tree.bytes();
        let mut out =
            Vec::with_capacity(document.len() + splices.iter().map(|splice| splice.text.len()).sum::<usize>());
        let mut at = 0;
        for splice in splices {
            if splice.start >= at {
                out.extend_from_slice(document.get(at..splice.start).unwrap_or_default());
                out.extend_from_slice(&splice.text);
                at = splice.end;
            }
        }
        out.extend_from_slice(document.get(at..).unwrap_or_default());
        out.into()
    }

    /// Takes children out of an object or array, and adds others behind the last that stays. A child that goes takes the
    /// comma before it along if one before it stays, else the comma behind it.
    fn reshape(&self, holder: Node<'_>, splices: &mut Vec<Splice>) {
        let mut kept = None;
        let mut end = holder.span().start + 1;
        let mut children = holder.children().peekable();
        while let Some(child) = children.next() {
            let span = child.member_span();
            if matches!(self.values.get(&child.id()), Some(Change::Remove)) {
                let (start, stop) = match (kept, children.peek()) {
                    (Some(_), _) => (end, span.end),
                    (None, Some(next)) => (span.start, next.member_span().start),
                    (None, None) => (span.start, span.end),
                };
                splices.push(Splice { start, end: stop, text: Vec::new() });
            } else {
                kept = Some(span.end);
            }
            end = span.end;
        }
        let Some(added) = self.added.get(&holder.id()).filter(|added| !added.is_empty()) else { return };
        let mut text = Vec::new();
        for (index, Added { name, json }) in added.iter().enumerate() {
            if index > 0 || kept.is_some() {
                text.push(b',');
            }
            if let Some(name) = name {
                text.extend_from_slice(canonical::string(name).as_bytes());
                text.push(b':');
            }
            text.extend_from_slice(json);
        }
        // At the end of the holder, where nothing else is spliced.
        let close = holder.span().end - 1;
        splices.push(Splice { start: close, end: close, text });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Limits;

    fn tree(text: &str) -> Tree {
        Tree::parse(Bytes::copy_from_slice(text.as_bytes()), &Limits::default()).unwrap()
    }

    fn edited(text: &str, edit: impl Fn(Node<'_>, &mut Edits)) -> String {
        let tree = tree(text);
        let mut edits = Edits::new(&tree);
        edit(tree.root(), &mut edits);
        String::from_utf8(edits.apply(&tree).to_vec()).unwrap()
    }

    #[test]
    fn nothing_changed_is_the_same_memory() {
        let tree = tree("{ }");
        let edits = Edits::new(&tree);
        assert!(edits.is_empty());
        assert_eq!(edits.apply(&tree).as_ptr(), tree.bytes().as_ptr());
    }

    #[test]
    fn only_what_is_named_changes() {
        let text = r#"{ "id" : "1" , "name" : [ {"family":"x"} , {} ] }"#;
        assert_eq!(
            edited(text, |root, edits| {
                edits.set_str(root.member("id").unwrap(), "a\"b");
                edits.append_item(root.member("name").unwrap(), b"3".to_vec());
                edits.insert_member(root.find(&["name"]).nth(1).unwrap(), "a\n", b"[]".to_vec());
                edits.insert_member(root, "active", b"true".to_vec());
            }),
            r#"{ "id" : "a\"b" , "name" : [ {"family":"x"} , {"a\n":[]} ,3] ,"active":true}"#
        );
    }

    #[test]
    fn any_children_can_go_and_others_come() {
        for count in 0..5_usize {
            for removed in 0..1_u32 << count {
                for added in 0..3 {
                    let members: Vec<String> = (0..count).map(|index| format!(r#""m{index}" : [{index}]"#)).collect();
                    let text = edited(&format!("{{ {} }}", members.join(" , ")), |root, edits| {
                        for (index, member) in root.members().enumerate() {
                            if removed >> index & 1 == 1 {
                                edits.set(member.children().next().unwrap(), b"9".to_vec());
                                edits.remove(member);
                            }
                        }
                        for index in 0..added {
                            edits.insert_member(root, &format!("n{index}"), b"0".to_vec());
                        }
                    });
                    let left = (0..count).filter(|index| removed >> index & 1 == 0).map(|index| format!("m{index}"));
                    let expected: Vec<String> = left.chain((0..added).map(|index| format!("n{index}"))).collect();
                    let result = tree(&text);
                    assert_eq!(result.root().members().filter_map(Node::name).collect::<Vec<_>>(), expected, "{text}");
                }
            }
        }
    }

    #[test]
    fn the_outer_change_wins() {
        let text = r#"{"name":[{"family":"x"}],"id":"1"}"#;
        assert_eq!(
            edited(text, |root, edits| {
                edits.set_str(root.find(&["name", "family"]).next().unwrap(), "y");
                edits.append_item(root.member("name").unwrap(), b"1".to_vec());
                edits.set(root.member("name").unwrap(), b"[]".to_vec());
                edits.remove(root);
            }),
            r#"{"name":[],"id":"1"}"#
        );
    }
}
