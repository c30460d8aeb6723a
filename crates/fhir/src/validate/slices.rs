//! Slicing: which slice an item belongs to, and what follows from it. An item is asked by each slice's conditions in turn; where
//! a condition cannot be told, that is said, and neither a missing slice nor a surplus item is claimed.

use super::claims::Answer;
use super::profile::At;
use super::rules;
use super::walk::Walk;
use crate::definitions::TypeId;
use crate::definitions::valueset::Membership;
use crate::path::{Element as Item, resource as resource_item};
use crate::profile::element::{Condition, Element, Openness, Place, Profile, Slice, Step, Test};
use crate::profile::library::Named;
use crate::profile::value;
use crate::tree::Node;

/// What the path of a discriminator leads to.
#[derive(Default)]
struct Reached {
    items: Vec<Item>,
    /// Resources that are not at hand, by their types.
    elsewhere: Vec<TypeId>,
    /// Something is there of which nothing is known.
    is_lost: bool,
}

impl<'t> Walk<'_, 't> {
    /// The slices of an element, over the items that one object has of it.
    pub(super) fn slices(&mut self, at: At<'_, 't>, place: Place, items: &[Item], object: Node<'t>) {
        let Some(element) = at.profile.elements.get(place) else { return };
        let mut belonging: Vec<Vec<Item>> = vec![Vec::new(); element.slices.len()];
        let mut is_open = vec![false; element.slices.len()];
        let (mut last, mut surplus) = (0, false);
        for &item in items {
            let Some(node) = item.node(self.tree()) else { continue };
            if self.is_full() {
                return;
            }
            let mut own = None;
            let mut open = Vec::new();
            for (number, slice) in element.slices.iter().enumerate().filter(|(_, slice)| &*slice.name != "@default") {
                match self.belongs(At { item, ..at }, slice) {
                    (Answer::Yes, _) if own.is_none() => own = Some(number),
                    (Answer::Yes, _) => {
                        let text = format!("Expected an item of one slice of {} only", element.id);
                        self.differs(&rules::SLICE_SEVERAL, node, text, at.profile);
                    }
                    (Answer::Open, at) => open.push((number, at)),
                    (Answer::No, _) => {}
                }
            }
            let default = element.slices.iter().position(|slice| &*slice.name == "@default");
            match own {
                Some(number) => {
                    belonging[number].push(item);
                    let slicing = element.slicing.as_ref();
                    if slicing.is_some_and(|slicing| slicing.is_ordered) && number < last {
                        let text = format!("Expected the slices of {} in their order", element.id);
                        self.differs(&rules::SLICE_ORDER, node, text, at.profile);
                    }
                    if surplus && slicing.is_some_and(|slicing| slicing.openness == Openness::AtEnd) {
                        let text = format!("Expected what is in no slice of {} behind all slices", element.id);
                        self.differs(&rules::SLICE_ORDER, node, text, at.profile);
                    }
                    last = last.max(number);
                }
                None if !open.is_empty() => {
                    for &(number, _) in &open {
                        is_open[number] = true;
                    }
                    self.undecidable(at.profile, element, &open, node);
                }
                None => {
                    if let Some(default) = default {
                        belonging[default].push(item);
                        continue;
                    }
                    surplus = true;
                    if element.slicing.as_ref().is_some_and(|slicing| slicing.openness == Openness::Closed) {
                        let text = self.nearest(At { item, ..at }, element);
                        self.differs(&rules::SLICE_CLOSED, node, text, at.profile);
                    }
                }
            }
        }
        for (number, slice) in element.slices.iter().enumerate() {
            let Some(sliced) = at.profile.elements.get(slice.element) else { continue };
            let count = u32::try_from(belonging[number].len()).unwrap_or(u32::MAX);
            if count < sliced.min && !is_open[number] {
                let nearest = self.nearest_item(at, slice, items);
                self.too_few(at.profile, sliced, (sliced.min, &nearest), object);
            }
            self.expected(at, sliced, count == 0 && !is_open[number], object);
            if let Some(max) = sliced.max.filter(|&max| count > max) {
                let text = format!("Expected at most {max} of {}", sliced.id);
                self.differs(&rules::MAX, object, text, at.profile);
            }
            for &item in &belonging[number] {
                self.element(At { item, ..at }, slice.element);
            }
            if !sliced.slices.is_empty() {
                self.slices(at, slice.element, &belonging[number], object);
            }
        }
    }

    /// Whether an item belongs to a slice, and the number of the condition that speaks against it or can't be told.
    fn belongs(&mut self, at: At<'_, 't>, slice: &Slice) -> (Answer, usize) {
        let mut answer = (Answer::Yes, 0);
        for (number, condition) in slice.conditions.iter().enumerate() {
            match self.condition(at, condition) {
                Answer::Yes => {}
                Answer::No => return (Answer::No, number),
                Answer::Open if answer.0 == Answer::Yes => answer = (Answer::Open, number),
                Answer::Open => {}
            }
        }
        answer
    }

    /// One issue for an item, whatever the number of slices that it may belong to; each with its condition.
    fn undecidable(&mut self, profile: &Profile, element: &Element, open: &[(usize, usize)], node: Node<'t>) {
        let slices = open.iter().filter_map(|&(number, which)| Some((element.slices.get(number)?, which)));
        let by = |(slice, which): (&Slice, usize)| {
            slice.conditions.get(which).map_or_else(|| "$this".into(), |condition| condition.text.clone())
        };
        let mut ways: Vec<Box<str>> = slices.clone().map(by).collect();
        ways.dedup();
        let names: Vec<&str> = slices.map(|(slice, _)| &*slice.name).collect();
        let text =
            format!("Could not tell by `{}` whether this is {}:{}", ways.join("`, `"), element.id, names.join(" or "));
        self.differs(&rules::SLICE_UNDECIDABLE, node, text, profile);
    }

    /// Which item comes nearest to a slice that is missing, and what speaks against it.
    fn nearest_item(&mut self, at: At<'_, 't>, slice: &Slice, items: &[Item]) -> String {
        let mut best: Option<(usize, Item)> = None;
        for &item in items {
            let (answer, failed) = self.belongs(At { item, ..at }, slice);
            if answer == Answer::No && best.is_none_or(|(most, _)| failed > most) {
                best = Some((failed, item));
            }
        }
        // That an extension has another url says nothing.
        let by_url = matches!(&*slice.conditions, [Condition { test: Test::Urls(_), .. }]);
        let Some((failed, item)) = best.filter(|_| !by_url) else { return String::new() };
        let by = slice.conditions.get(failed).map_or("$this", |condition| &*condition.text);
        let place = item
            .node(self.tree())
            .and_then(Node::index)
            .map_or_else(|| "what is there".to_owned(), |index| format!("[{index}]"));
        format!("; {place} comes nearest, but for `{by}`")
    }

    /// Says which slice an item comes nearest to, and what speaks against it.
    fn nearest(&mut self, at: At<'_, 't>, element: &Element) -> String {
        let mut best: Option<(usize, &Slice)> = None;
        for slice in &element.slices {
            let (_, failed) = self.belongs(at, slice);
            if best.is_none_or(|(most, _)| failed > most) {
                best = Some((failed, slice));
            }
        }
        let Some((failed, slice)) = best else { return format!("Expected an item of a slice of {}", element.id) };
        let by = slice.conditions.get(failed).map_or("$this", |condition| &*condition.text);
        format!("Expected an item of a slice of {}; the nearest is {}, but for `{by}`", element.id, slice.name)
    }

    fn condition(&mut self, at: At<'_, 't>, condition: &Condition) -> Answer {
        if let Test::Urls(urls) = &condition.test {
            let url = at.item.value(self.tree()).and_then(|node| node.member("url")).and_then(Node::as_str);
            return url.is_some_and(|url| urls.iter().any(|known| **known == *url)).into();
        }
        let reached = self.follow(at.item, &condition.path);
        let open = if reached.is_lost || !reached.elsewhere.is_empty() { Answer::Open } else { Answer::No };
        match &condition.test {
            Test::Undecidable => Answer::Open,
            Test::Exists(wanted) if reached.is_lost => {
                if *wanted {
                    Answer::Yes
                } else {
                    Answer::No
                }
            }
            Test::Exists(wanted) => ((reached.items.is_empty() && reached.elsewhere.is_empty()) != *wanted).into(),
            Test::Urls(_) => Answer::No,
            Test::Element(place) => {
                self.first(&reached.items, open, |walk, item| walk.tells(At { item, ..at }, *place))
            }
            Test::Sample(sample) => {
                let has = |walk: &mut Self, item: Item| {
                    item.value(walk.tree()).is_some_and(|node| value::contains(node, sample.node())).into()
                };
                self.first(&reached.items, open, has)
            }
            Test::Types(names) => {
                let is = |name: &str| names.iter().any(|wanted| **wanted == *name);
                let definitions = self.definitions;
                let elsewhere = reached.elsewhere.iter().any(|&id| is(definitions.type_name(id)));
                let here = reached.items.iter().any(|item| is(item.ty.name(definitions)));
                if here || elsewhere {
                    Answer::Yes
                } else if reached.is_lost {
                    Answer::Open
                } else {
                    Answer::No
                }
            }
            Test::Profiles(profiles) => {
                let elsewhere = reached.elsewhere.iter().fold(open, |answer, &id| match answer {
                    // What is not at hand can be of a profile only if it is of its type.
                    Answer::Open if !reached.is_lost => self.may_be(id, profiles),
                    answer => answer,
                });
                self.first(&reached.items, elsewhere, |walk, item| {
                    let Some(node) = item.node(walk.tree()) else { return Answer::No };
                    let scope = Self::scope_of(item, node, at.scope);
                    walk.fits_any(At { item, scope, ..at }, profiles)
                })
            }
            Test::Within { profiles, path } => self.first(&reached.items, open, |walk, item| {
                let mut answer = Answer::No;
                for canonical in profiles {
                    match walk.tells_within(At { item, ..at }, canonical, path) {
                        Answer::Yes => return Answer::Yes,
                        Answer::Open => answer = Answer::Open,
                        Answer::No => {}
                    }
                }
                answer
            }),
        }
    }

    /// The first that says yes decides; else one that can't tell; else `otherwise`.
    fn first(&mut self, items: &[Item], otherwise: Answer, mut ask: impl FnMut(&mut Self, Item) -> Answer) -> Answer {
        let mut answer = otherwise;
        for &item in items {
            match ask(self, item) {
                Answer::Yes => return Answer::Yes,
                Answer::Open => answer = Answer::Open,
                Answer::No => {}
            }
        }
        answer
    }

    /// Whether a resource of that type can be of one of these profiles.
    fn may_be(&self, id: TypeId, profiles: &[Box<str>]) -> Answer {
        let Some(library) = self.profiles.as_ref().map(|profiles| profiles.library) else { return Answer::Open };
        let mut answer = Answer::No;
        for canonical in profiles {
            match library.named(canonical) {
                Named::Type(asked) if library.is_type(id, asked) => return Answer::Yes,
                Named::Profile(profile) if library.is_type(id, profile.of) => answer = Answer::Open,
                Named::Broken(_) | Named::Unknown => answer = Answer::Open,
                Named::Type(_) | Named::Profile(_) => {}
            }
        }
        answer
    }

    /// Whether an item has the values that an element fixes, in itself and below.
    fn tells(&mut self, at: At<'_, 't>, place: Place) -> Answer {
        let Some(element) = at.profile.elements.get(place) else { return Answer::Open };
        let found = at.item.value(self.tree());
        let is = |test: &dyn Fn(Node<'t>) -> bool| found.is_some_and(test);
        if element.fixed.as_ref().is_some_and(|fixed| !is(&|node| value::equals(node, fixed.node())))
            || element.patterns.iter().any(|pattern| !is(&|node| value::contains(node, pattern.node())))
        {
            return Answer::No;
        }
        let mut answer = Answer::Yes;
        for binding in element.bindings.iter().filter(|binding| binding.is_telling()) {
            match self.membership(at.item, &binding.value_set) {
                Some(Membership::In) => {}
                Some(Membership::Unknown) => answer = Answer::Open,
                Some(Membership::Out) | None => return Answer::No,
            }
        }
        for &child in &element.children {
            let Some(inner) = at.profile.elements.get(child).filter(|inner| inner.is_telling(&at.profile.elements))
            else {
                continue;
            };
            let items = self.items_at(at.item, &inner.name);
            // What need not be there tells only if it is.
            if items.is_empty() && inner.min == 0 && inner.fixed.is_none() && inner.patterns.is_empty() {
                continue;
            }
            match self.first(&items, Answer::No, |walk, item| walk.tells(At { item, ..at }, child)) {
                Answer::Yes => {}
                Answer::Open => answer = Answer::Open,
                Answer::No => return Answer::No,
            }
        }
        for slice in &element.slices {
            let Some(inner) = at.profile.elements.get(slice.element).filter(|inner| inner.min > 0) else { continue };
            if !inner.is_telling(&at.profile.elements) {
                continue;
            }
            // A slice of this very element, as of the codings of a concept: it is among the items that are asked.
            if self.tells(at, slice.element) == Answer::Open {
                answer = Answer::Open;
            }
        }
        answer
    }

    /// The same by an element of another profile.
    fn tells_within(&mut self, at: At<'_, 't>, canonical: &str, path: &[Step]) -> Answer {
        let Some(library) = self.profiles.as_ref().map(|profiles| profiles.library) else { return Answer::Open };
        let profile = match library.named(canonical) {
            Named::Profile(profile) => profile,
            Named::Type(_) | Named::Broken(_) | Named::Unknown => return Answer::Open,
        };
        if path.is_empty() {
            return self.fits_any(at, &[canonical]);
        }
        let mut place = profile.place(canonical);
        for step in path {
            let element = place.and_then(|place: Place| profile.elements.get(place));
            place = element.and_then(|element| match step {
                Step::Member(name) => {
                    element.children.iter().copied().find(|&child| profile.elements[child].name == *name)
                }
                Step::OfType(_) => place,
                Step::Extension(_) | Step::Resolve => None,
            });
        }
        let Some(place) = place.filter(|&place| profile.elements[place].is_telling(&profile.elements)) else {
            return Answer::Open;
        };
        let reached = self.follow(at.item, path);
        self.first(&reached.items, Answer::No, |walk, item| {
            walk.tells(At { item, profile: &profile, scope: at.scope }, place)
        })
    }

    /// Goes where the path of a discriminator leads.
    fn follow(&mut self, item: Item, path: &[Step]) -> Reached {
        let mut reached = Reached { items: vec![item], ..Reached::default() };
        for step in path {
            let items = std::mem::take(&mut reached.items);
            for item in items {
                match step {
                    Step::Member(name) => reached.items.extend(self.items_at(item, name)),
                    Step::Extension(url) => {
                        let is = |found: &Item| {
                            let node = found.value(self.tree()).and_then(|node| node.member("url"));
                            node.is_some_and(|node| node.is_str(url))
                        };
                        reached.items.extend(self.items_at(item, "extension").into_iter().filter(is));
                    }
                    Step::OfType(name) => {
                        if item.ty.name(self.definitions) == &**name {
                            reached.items.push(item);
                        }
                    }
                    Step::Resolve => self.resolve(item, &mut reached),
                }
            }
        }
        reached
    }

    fn resolve(&mut self, item: Item, reached: &mut Reached) {
        let Some(node) = item.value(self.tree()) else { return };
        let text = if node.is_object() { node.member("reference").and_then(Node::as_str) } else { node.as_str() };
        // An identifier, or a text to display, points to something, but nobody knows to what.
        let Some(text) = text else {
            reached.is_lost = true;
            return;
        };
        if let Some(found) = self.document.resource_at(&text, node) {
            reached.items.push(resource_item(self.definitions, found));
            return;
        }
        let scope = Self::scope_around(node);
        match scope.and_then(|scope| self.references.type_of(&text, scope)) {
            Some(id) => reached.elsewhere.push(id),
            None => reached.is_lost = true,
        }
    }
}
