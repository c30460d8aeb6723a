//! The functions: which code each is, and those that go through collections.

use std::cmp::Ordering;

use super::compare::Set;
use super::error::Fault;
use super::eval::{Frame, Outcome, Run, only};
use super::functions::{Function, Takes};
use super::item::{Collection, Item};
use super::program::Id;
use super::types::Type;

impl<'a> Run<'a> {
    pub(super) fn call(
        &self,
        function: Function,
        input: Id,
        arguments: &[Id],
        at: u32,
        frame: Frame<'_, 'a>,
    ) -> Outcome<'a> {
        let input = self.eval(input, frame)?;
        if function.takes() == Takes::Each {
            return self.go_through(function, input, arguments, at, frame);
        }
        let mut values = Vec::with_capacity(arguments.len());
        for argument in arguments {
            values.push(self.eval(*argument, frame)?);
        }
        self.apply(function, input, &values, at)
    }

    /// Functions that run an expression for each item.
    fn go_through(
        &self,
        function: Function,
        input: Collection<'a>,
        arguments: &[Id],
        at: u32,
        frame: Frame<'_, 'a>,
    ) -> Outcome<'a> {
        let first = arguments.first().copied();
        match (function, first) {
            (Function::Where, Some(criterion)) => {
                let mut kept = Collection::Empty;
                for (item, result) in Each::new(self, &input, criterion, frame) {
                    if self.truth(&result?, at)? == Some(true) {
                        kept.push(item.clone());
                    }
                }
                Ok(kept)
            }
            (Function::Select, Some(projection)) => {
                let mut all = Collection::Empty;
                for (_, result) in Each::new(self, &input, projection, frame) {
                    all.append(result?);
                    self.charge(at, 1)?;
                }
                Ok(all)
            }
            (Function::All, Some(criterion)) => {
                for (_, result) in Each::new(self, &input, criterion, frame) {
                    if self.truth(&result?, at)? != Some(true) {
                        return Ok(Collection::from(false));
                    }
                }
                Ok(Collection::from(true))
            }
            (Function::Exists, None) => Ok(Collection::from(!input.is_empty())),
            (Function::Exists, Some(criterion)) => {
                for (_, result) in Each::new(self, &input, criterion, frame) {
                    if self.truth(&result?, at)? == Some(true) {
                        return Ok(Collection::from(true));
                    }
                }
                Ok(Collection::from(false))
            }
            (Function::Repeat, Some(projection)) => self.repeat(&input, projection, at, frame),
            (Function::Aggregate, Some(aggregator)) => {
                let mut total = match arguments.get(1) {
                    Some(start) => self.eval(*start, frame)?,
                    None => Collection::Empty,
                };
                for (index, item) in input.iter().enumerate() {
                    let this = Collection::One(item.clone());
                    let inner = Frame { this: &this, index: i64::try_from(index).ok(), total: Some(&total) };
                    total = self.eval(aggregator, inner)?;
                }
                Ok(total)
            }
            (Function::Trace, _) => {
                // Nothing is written anywhere: what a record holds stays in it.
                for projection in arguments.iter().skip(1) {
                    Each::new(self, &input, *projection, frame).try_for_each(|(_, result)| result.map(drop))?;
                }
                Ok(input)
            }
            (Function::If, Some(criterion)) => {
                only(&input, at)?;
                let inner = Frame { this: &input, ..frame };
                let criterion = self.eval(criterion, inner)?;
                let place = if self.boolean(&criterion, at)? == Some(true) { 1 } else { 2 };
                arguments.get(place).map_or(Ok(Collection::Empty), |branch| self.eval(*branch, inner))
            }
            _ => Err(Fault::evaluation(at, "Expected an argument")),
        }
    }

    /// What a projection gives, again for what it gave, until nothing new comes.
    fn repeat(&self, input: &Collection<'a>, projection: Id, at: u32, frame: Frame<'_, 'a>) -> Outcome<'a> {
        let mut seen = Set::default();
        let mut all: Vec<Item<'a>> = Vec::new();
        let mut next = 0;
        for (_, result) in Each::new(self, input, projection, frame) {
            for item in result?.into_vec() {
                if seen.insert(self, &item, at)? {
                    all.push(item);
                }
            }
        }
        while let Some(item) = all.get(next).cloned() {
            next += 1;
            let this = Collection::One(item);
            for item in self.eval(projection, Frame { this: &this, index: None, ..frame })?.into_vec() {
                if seen.insert(self, &item, at)? {
                    all.push(item);
                }
            }
        }
        Ok(Collection::from(all))
    }

    /// Sorted by keys; what has no key comes first.
    pub(super) fn sort(&self, input: Collection<'a>, keys: &[(Id, bool)], at: u32) -> Outcome<'a> {
        let mut rows = Vec::with_capacity(input.len());
        for item in input.into_vec() {
            let this = Collection::One(item.clone());
            let frame = Frame { this: &this, index: None, total: None };
            let mut values = Vec::with_capacity(keys.len().max(1));
            for (key, descending) in keys {
                let value = self.eval(*key, frame)?;
                values.push((only(&value, at)?.cloned(), *descending));
            }
            if keys.is_empty() {
                values.push((Some(item.clone()), false));
            }
            rows.push((values, item));
        }
        let mut fault = None;
        rows.sort_by(|(left, _), (right, _)| {
            for ((left, descending), (right, _)) in left.iter().zip(right) {
                let order = match (left, right) {
                    (None, None) => Ordering::Equal,
                    (None, Some(_)) => return Ordering::Less,
                    (Some(_), None) => return Ordering::Greater,
                    (Some(left), Some(right)) => match self.order(left, right, at) {
                        Ok(order) => order.unwrap_or(Ordering::Equal),
                        Err(found) => {
                            fault.get_or_insert(found);
                            Ordering::Equal
                        }
                    },
                };
                if order.is_ne() {
                    return if *descending { order.reverse() } else { order };
                }
            }
            Ordering::Equal
        });
        match fault {
            Some(fault) => Err(fault),
            None => Ok(rows.into_iter().map(|(_, item)| item).collect()),
        }
    }

    /// Functions on values.
    fn apply(&self, function: Function, input: Collection<'a>, arguments: &[Collection<'a>], at: u32) -> Outcome<'a> {
        static NONE: Collection<'static> = Collection::Empty;
        let argument = |place: usize| arguments.get(place).unwrap_or(&NONE);
        match function {
            Function::Empty => Ok(Collection::from(input.is_empty())),
            Function::Count => Ok(Collection::One(Item::Integer(i64::try_from(input.len()).unwrap_or(i64::MAX)))),
            Function::Not => Ok(Collection::from(self.truth(&input, at)?.map(|value| !value))),
            Function::AllTrue => self.every(&input, true, at).map(Collection::from),
            Function::AllFalse => self.every(&input, false, at).map(Collection::from),
            Function::AnyTrue => self.any(&input, true, at).map(Collection::from),
            Function::AnyFalse => self.any(&input, false, at).map(Collection::from),
            Function::SubsetOf => self.is_subset(&input, argument(0), at),
            Function::SupersetOf => self.is_subset(argument(0), &input, at),
            Function::Distinct => self.distinct(input, at),
            Function::IsDistinct => {
                let count = input.len();
                Ok(Collection::from(self.distinct(input, at)?.len() == count))
            }
            Function::Single => only(&input, at).map(|item| Collection::from(item.cloned())),
            Function::First => Ok(Collection::from(input.iter().next().cloned())),
            Function::Last => Ok(Collection::from(input.iter().last().cloned())),
            Function::Tail => Ok(input.iter().skip(1).cloned().collect()),
            Function::Skip | Function::Take => {
                let Some(count) = self.integer(argument(0), at)? else { return Ok(Collection::Empty) };
                let count = usize::try_from(count).unwrap_or(0);
                let items = input.into_vec().into_iter();
                Ok(if function == Function::Skip { items.skip(count).collect() } else { items.take(count).collect() })
            }
            Function::Union => {
                let mut all = input;
                all.append(argument(0).clone());
                self.distinct(all, at)
            }
            Function::Combine => {
                let mut all = input;
                self.charge(at, argument(0).len())?;
                all.append(argument(0).clone());
                Ok(all)
            }
            Function::Intersect | Function::Exclude => {
                let others = Set::of(self, argument(0), at)?;
                let mut kept = Vec::new();
                for item in input.into_vec() {
                    if others.contains(self, &item, at)? == (function == Function::Intersect) {
                        kept.push(item);
                    }
                }
                let kept = Collection::from(kept);
                if function == Function::Intersect { self.distinct(kept, at) } else { Ok(kept) }
            }
            Function::Children => {
                let mut found = Vec::new();
                for item in input.iter() {
                    self.children(item, &mut found);
                }
                self.charge(at, found.len())?;
                Ok(Collection::from(found))
            }
            Function::Descendants => {
                let mut found = Vec::new();
                for item in input.iter() {
                    self.children(item, &mut found);
                }
                let mut next = 0;
                while let Some(item) = found.get(next).cloned() {
                    let before = found.len();
                    self.children(&item, &mut found);
                    self.charge(at, found.len() - before + 1)?;
                    next += 1;
                }
                Ok(Collection::from(found))
            }
            Function::Type => Ok(input
                .iter()
                .map(|item| {
                    let ty = self.type_of(item);
                    let namespace = if matches!(ty, Type::System(_) | Type::Info) { "System" } else { "FHIR" };
                    Item::TypeInfo { namespace, name: ty.name(self.definitions) }
                })
                .collect()),
            _ => self.apply_to_one(function, &input, arguments, at),
        }
    }

    fn every(&self, input: &Collection<'a>, value: bool, at: u32) -> Result<bool, Fault> {
        for item in input.iter() {
            if self.boolean(&Collection::One(item.clone()), at)? != Some(value) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn any(&self, input: &Collection<'a>, value: bool, at: u32) -> Result<bool, Fault> {
        for item in input.iter() {
            if self.boolean(&Collection::One(item.clone()), at)? == Some(value) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn is_subset(&self, inner: &Collection<'a>, outer: &Collection<'a>, at: u32) -> Outcome<'a> {
        let outer = Set::of(self, outer, at)?;
        for item in inner.iter() {
            if !outer.contains(self, item, at)? {
                return Ok(Collection::from(false));
            }
        }
        Ok(Collection::from(true))
    }
}

/// Runs an expression for each item of a collection.
struct Each<'r, 'f, 'a> {
    run: &'r Run<'a>,
    items: &'r [Item<'a>],
    next: usize,
    expression: Id,
    frame: Frame<'f, 'a>,
}

impl<'r, 'f, 'a> Each<'r, 'f, 'a> {
    fn new(run: &'r Run<'a>, items: &'r Collection<'a>, expression: Id, frame: Frame<'f, 'a>) -> Self {
        Self { run, items: items.as_slice(), next: 0, expression, frame }
    }
}

impl<'r, 'a> Iterator for Each<'r, '_, 'a> {
    type Item = (&'r Item<'a>, Outcome<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.items.get(self.next)?;
        let this = Collection::One(item.clone());
        let frame = Frame { this: &this, index: i64::try_from(self.next).ok(), total: self.frame.total };
        self.next += 1;
        Some((item, self.run.eval(self.expression, frame)))
    }
}
