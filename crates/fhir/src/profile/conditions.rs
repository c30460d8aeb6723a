//! What makes an item belong to a slice: of each discriminator, what the slice's own elements, or those that it inherits, say
//! at its path. Takes the elements of a profile as they were laid over each other, gives each slice its conditions.

use super::compile::Draft;
use super::element::{By, Condition, Discriminator, Element, Place, Sample, Slice, Step, Test};

impl Draft<'_> {
    /// Tells of each slice what makes an item belong to it.
    pub(super) fn finish(&mut self) {
        let count = self.elements.len();
        let mut known = Known { is_told: vec![false; count], general: vec![None; count] };
        for place in 0..count {
            self.generalize(place, &mut known);
        }
        self.general = known.general;
        for place in 0..self.elements.len() {
            for number in 0..self.elements[place].slices.len() {
                let slice = &self.elements[place].slices[number];
                let conditions = self.conditions(place, slice);
                self.elements[place].slices[number].conditions = conditions;
            }
        }
    }

    /// The element of the same path that speaks of more items than this one does: of a slice, the slice of that name that what is
    /// around it inherits, or else the element that is sliced; of a child of a slice, the child of what is sliced.
    fn generalize(&self, place: Place, known: &mut Known) -> Option<Place> {
        if known.is_told[place] {
            return known.general[place];
        }
        let above = self.above[place];
        let mut around = above.and_then(|above| self.generalize(above, known));
        let slice = above.and_then(|above| self.elements[above].slices.iter().find(|slice| slice.element == place));
        let mut general = above.filter(|_| slice.is_some());
        while let Some(at) = around {
            let at_element = &self.elements[at];
            let same = match slice {
                Some(slice) => at_element.slices.iter().find(|same| same.name == slice.name).map(|same| same.element),
                None => self.child_of(at, &self.elements[place].name),
            };
            if same.is_some() {
                general = same;
                break;
            }
            around = self.generalize(at, known);
        }
        (known.is_told[place], known.general[place]) = (true, general);
        general
    }

    fn child_of(&self, place: Place, name: &str) -> Option<Place> {
        self.elements[place].children.iter().copied().find(|&child| *self.elements[child].name == *name)
    }

    /// An element, and those that are more general than it.
    fn upwards(&self, place: Place) -> impl Iterator<Item = Place> {
        std::iter::successors(Some(place), |&place| self.general[place])
    }

    fn conditions(&self, place: Place, slice: &Slice) -> Vec<Condition> {
        // A slice within a slice may say nothing of its own: then what it inherits tells.
        let inherited = self.upwards(slice.element).skip(1).take_while(|&more| {
            let above = self.above[more].map(|above| &self.elements[above]);
            above.is_some_and(|above| above.slices.iter().any(|same| same.element == more && same.name == slice.name))
        });
        let own = self.conditions_by(place, slice.element);
        let is_open = |conditions: &[Condition]| conditions.iter().any(|one| matches!(one.test, Test::Undecidable));
        if !is_open(&own) {
            return own;
        }
        inherited.map(|more| self.conditions_by(place, more)).find(|conditions| !is_open(conditions)).unwrap_or(own)
    }

    fn conditions_by(&self, place: Place, slice: Place) -> Vec<Condition> {
        let (element, own) = (&self.elements[place], &self.elements[slice]);
        let of_this = |test| Condition { path: Box::default(), test, text: "$this".into() };
        if matches!(&*element.name, "extension" | "modifierExtension") {
            return vec![Condition { text: "url".into(), ..of_this(self.urls(own)) }];
        }
        let slicing = self.upwards(place).filter_map(|place| self.elements[place].slicing.as_ref());
        let discriminators =
            slicing.map(|slicing| &*slicing.discriminators).find(|list| !list.is_empty()).unwrap_or_default();
        if discriminators.is_empty() {
            // The slices of a choice are told apart by their types.
            let types = self.type_names(slice);
            let is_told = self.choices[place] && !types.is_empty();
            return vec![of_this(if is_told { Test::Types(types) } else { Test::Undecidable })];
        }
        discriminators.iter().map(|discriminator| self.condition(slice, discriminator)).collect()
    }

    fn urls(&self, own: &Element) -> Test {
        let url = own.children.iter().map(|&child| &self.elements[child]).find(|child| &*child.name == "url");
        let url = url.and_then(|url| url.fixed.as_ref().or(url.patterns.first()));
        if let Some(url) = url.and_then(|url| url.node().as_str().map(|url| url.as_ref().into())) {
            return Test::Urls(Box::new([url]));
        }
        let urls: Box<[Box<str>]> =
            profiles(own).iter().map(|canonical| crate::package::unversioned(canonical).into()).collect();
        if urls.is_empty() { Test::Undecidable } else { Test::Urls(urls) }
    }

    fn type_names(&self, place: Place) -> Box<[Box<str>]> {
        let element = &self.elements[place];
        if element.types.is_empty() {
            return self.shapes[place].into_iter().map(|ty| ty.name(self.definitions).into()).collect();
        }
        element.types.iter().map(|rule| rule.code.clone()).collect()
    }

    fn condition(&self, slice: Place, discriminator: &Discriminator) -> Condition {
        let text = discriminator.text.clone();
        let all = &discriminator.path;
        let whole = |test| Condition { path: all.clone(), test, text: text.clone() };
        let found = self.descend(slice, all);
        match discriminator.by {
            By::Unknown => whole(Test::Undecidable),
            By::Exists => {
                let element = found.place.map(|place| &self.elements[place]);
                whole(match element {
                    Some(element) if element.max == Some(0) => Test::Exists(false),
                    Some(element) if element.min > 0 => Test::Exists(true),
                    _ => Test::Undecidable,
                })
            }
            By::Type | By::Profile => {
                let resolved = all.last() == Some(&Step::Resolve);
                let Some(place) = found.place else { return whole(Test::Undecidable) };
                let element = &self.elements[place];
                let named: Box<[Box<str>]> = if resolved {
                    element.types.iter().flat_map(|rule| rule.targets.iter().cloned()).collect()
                } else if discriminator.by == By::Type {
                    return whole(match self.type_names(place) {
                        names if names.is_empty() => Test::Undecidable,
                        names => Test::Types(names),
                    });
                } else {
                    profiles(element)
                };
                whole(if named.is_empty() { Test::Undecidable } else { Test::Profiles(named) })
            }
            By::Value => {
                if let Some(place) = found.place.filter(|&place| self.elements[place].is_telling(&self.elements)) {
                    if let Some(Step::Member(name)) = all.last()
                        && &**name == "url"
                        && all.len() == 1
                    {
                        return Condition { path: Box::default(), test: self.urls(&self.elements[slice]), text };
                    }
                    return whole(Test::Element(place));
                }
                if let Some((at, sample)) = found.sample {
                    return Condition { path: all[..at].into(), test: Test::Sample(sample), text };
                }
                if let Some((at, profiles)) = found.profiles {
                    let test = Test::Within { profiles, path: all[at..].into() };
                    return Condition { path: all[..at].into(), test, text };
                }
                whole(match found.place.map(|place| &self.elements[place]) {
                    Some(element) if element.max == Some(0) => Test::Exists(false),
                    Some(element) if element.min > 0 => Test::Exists(true),
                    _ => Test::Undecidable,
                })
            }
        }
    }

    /// Where a discriminator's path leads in a slice.
    fn descend(&self, slice: Place, path: &[Step]) -> Found {
        let mut found = Found { place: Some(slice), sample: None, profiles: None };
        let mut samples: Vec<Sample> = Vec::new();
        for (at, step) in path.iter().enumerate() {
            let before = found.place.map(|place| &self.elements[place]);
            if let Some(element) = before {
                let named = profiles(element);
                if !named.is_empty() {
                    found.profiles = Some((at, named));
                }
                samples.extend(element.fixed.iter().chain(&element.patterns).cloned());
            }
            samples = match step {
                Step::Member(name) => samples.iter().filter_map(|sample| sample.part(name)).collect(),
                Step::OfType(_) => samples,
                Step::Extension(_) | Step::Resolve => Vec::new(),
            };
            found.place = before.and_then(|element| {
                let child = |name: &str| {
                    element.children.iter().copied().find(|&child| *self.elements[child].name == *name)
                };
                match step {
                    Step::Member(name) => child(name),
                    Step::Resolve => found.place,
                    Step::OfType(name) => {
                        let of_type = |slice: &&Slice| self.type_names(slice.element).iter().any(|known| known == name);
                        element.slices.iter().find(of_type).map(|slice| slice.element).or(found.place)
                    }
                    Step::Extension(url) => {
                        let extensions = &self.elements[child("extension")?];
                        let has = |slice: &&Slice| {
                            matches!(self.urls(&self.elements[slice.element]), Test::Urls(urls) if urls.contains(url))
                        };
                        extensions.slices.iter().find(has).map(|slice| slice.element)
                    }
                }
            });
            if *step == Step::Resolve
                && let Some(element) = before
            {
                let targets: Box<[Box<str>]> =
                    element.types.iter().flat_map(|rule| rule.targets.iter().cloned()).collect();
                found.profiles = (!targets.is_empty()).then_some((at + 1, targets));
            }
            if let Step::Extension(url) = step
                && at + 1 < path.len()
            {
                found.profiles = Some((at + 1, Box::new([url.clone()])));
            }
        }
        if let Some(place) = found.place {
            let named = profiles(&self.elements[place]);
            if !named.is_empty() {
                found.profiles = Some((path.len(), named));
            }
        }
        found.sample = samples.into_iter().next().map(|sample| (path.len(), sample));
        found
    }
}

/// Of each element the more general one, as far as that is told by now.
struct Known {
    is_told: Vec<bool>,
    general: Vec<Option<Place>>,
}

/// What was met on a discriminator's path.
struct Found {
    /// The element at its end.
    place: Option<Place>,
    /// A value that an element on the way fixes there.
    sample: Option<(usize, Sample)>,
    /// The profiles of the last element on the way that names some, and after how many steps.
    profiles: Option<(usize, Box<[Box<str>]>)>,
}

/// The profiles that an element's types name.
fn profiles(element: &Element) -> Box<[Box<str>]> {
    element.types.iter().flat_map(|rule| rule.profiles.iter().cloned()).collect()
}
