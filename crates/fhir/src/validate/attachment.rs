//! Attachments: what is said of the data is true of the data that is there (FHIR R4 datatypes.html#Attachment).

use super::rules;
use super::walk::Walk;
use crate::tree::Node;

impl<'t> Walk<'_, 't> {
    /// The size is that of the data, if both are given.
    pub(super) fn attachment(&mut self, node: Node<'t>) {
        let Some(size) = node.member("size").and_then(Node::number) else { return };
        let Some(data) = node.member("data").and_then(Node::as_str) else { return };
        // What is no base64, or no number, is another issue.
        let digits = data.bytes().filter(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')).count();
        if size.parse::<usize>().is_ok_and(|size| size != digits * 3 / 4) {
            self.issue(&rules::ATTACHMENT_SIZE, node, "Expected the size of the data, in bytes before base64");
        }
    }
}
