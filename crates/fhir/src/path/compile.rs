//! Turns an expression into a program: names looked up in the definitions, functions and types resolved, patterns built.
//! Follows what types each part can give; in strict mode what no such type has is an error before anything runs.

use super::Mode;
use super::ast::{Expr, Literal, Node, Operator, TypeName};
use super::error::Fault;
use super::functions::{Function, Gives, Takes};
use super::program::{Id, Operation, Program, Step, Variable};
use super::text;
use super::types::{self, Place, System, Type, TypeTest};
use crate::definitions::Definitions;
use crate::tree;

/// What a part of an expression can give.
#[derive(Debug, Clone)]
struct Static {
    /// None: anything.
    types: Option<Vec<Type>>,
    /// Whether its items have an order that means something.
    ordered: bool,
}

/// More types than this are as good as anything.
const TYPES_MAX: usize = 64;

impl Static {
    const ANYTHING: Self = Self { types: None, ordered: true };

    fn one(ty: Type) -> Self {
        Self { types: Some(vec![ty]), ordered: true }
    }

    fn system(system: System) -> Self {
        Self::one(Type::System(system))
    }

    fn both(self, other: &Self) -> Self {
        let types = self.types.zip(other.types.as_ref()).map(|(mut types, more)| {
            for ty in more {
                if !types.contains(ty) {
                    types.push(*ty);
                }
            }
            types
        });
        let types = types.filter(|types| types.len() <= TYPES_MAX);
        Self { types, ordered: self.ordered && other.ordered }
    }
}

/// Compiles an expression for a context of that type, or of any.
pub(super) fn compile(
    definitions: &Definitions,
    expr: &Expr,
    context: Option<Type>,
    mode: Mode,
) -> Result<Program, Fault> {
    let context = context.map_or(Static::ANYTHING, Static::one);
    let mut compiler = Compiler { definitions, mode, operations: Vec::new(), context: context.clone() };
    let (root, _) = compiler.expr(expr, &context)?;
    Ok(Program { operations: compiler.operations, root })
}

struct Compiler<'d> {
    definitions: &'d Definitions,
    mode: Mode,
    operations: Vec<(Operation, u32)>,
    /// What `%context` is.
    context: Static,
}

type Compiled = Result<(Id, Static), Fault>;

impl Compiler<'_> {
    fn add(&mut self, at: u32, operation: Operation) -> Id {
        let id = Id(u32::try_from(self.operations.len()).unwrap_or(u32::MAX));
        self.operations.push((operation, at));
        id
    }

    fn is_strict(&self) -> bool {
        self.mode == Mode::Strict
    }

    /// Compiles a part, where `$this` is `this`.
    fn expr(&mut self, expr: &Expr, this: &Static) -> Compiled {
        let at = expr.at;
        Ok(match &expr.node {
            Node::Literal(literal) => {
                let ty = match literal {
                    Literal::Boolean(_) => System::Boolean,
                    Literal::Integer(_) => System::Integer,
                    Literal::Decimal(_) => System::Decimal,
                    Literal::String(_) => System::String,
                    Literal::Quantity(_) => System::Quantity,
                    Literal::Temporal(value) => match value.kind {
                        super::temporal::Kind::Date => System::Date,
                        super::temporal::Kind::DateTime => System::DateTime,
                        super::temporal::Kind::Time => System::Time,
                    },
                };
                (self.add(at, Operation::Literal(literal.clone())), Static::system(ty))
            }
            Node::Empty => (self.add(at, Operation::Empty), Static { types: Some(Vec::new()), ordered: true }),
            Node::This => (self.add(at, Operation::This), this.clone()),
            Node::Index => (self.add(at, Operation::Index), Static::system(System::Integer)),
            Node::Total => (self.add(at, Operation::Total), Static::ANYTHING),
            Node::Variable(name) => self.variable(at, name)?,
            Node::Member(input, name) => {
                let Some(input) = input else { return self.first_name(at, name, this) };
                let (input, types) = self.expr(input, this)?;
                self.member(at, input, &types, name)?
            }
            Node::Call(input, name, arguments) => self.call(at, input.as_deref(), name, arguments, this)?,
            Node::Item(input, place) => {
                let (input, types) = self.expr(input, this)?;
                self.demand_order(at, &types)?;
                let (place, _) = self.expr(place, this)?;
                (self.add(at, Operation::Item(input, place)), types)
            }
            Node::Sign(negative, operand) => {
                let (operand, types) = self.expr(operand, this)?;
                (self.add(at, if *negative { Operation::Negate(operand) } else { Operation::Plus(operand) }), types)
            }
            Node::Binary(operator, left, right) => {
                let (left, left_types) = self.expr(left, this)?;
                let (right, right_types) = self.expr(right, this)?;
                let types = match operator {
                    Operator::Union => left_types.both(&right_types),
                    Operator::Concatenate => Static::system(System::String),
                    Operator::Multiply | Operator::Divide | Operator::Div | Operator::Mod => Static::ANYTHING,
                    Operator::Add | Operator::Subtract => Static::ANYTHING,
                    _ => Static::system(System::Boolean),
                };
                (self.add(at, Operation::Binary(*operator, left, right)), types)
            }
            Node::Is(operand, name) => {
                let (operand, _) = self.expr(operand, this)?;
                let test = self.type_test(at, name)?;
                (self.add(at, Operation::Is(operand, test)), Static::system(System::Boolean))
            }
            Node::As(operand, name) => {
                let (operand, types) = self.expr(operand, this)?;
                let test = self.cast(at, name)?;
                (self.add(at, Operation::As(operand, test)), self.narrowed(test, &types))
            }
        })
    }

    fn type_test(&self, at: u32, name: &TypeName) -> Result<TypeTest, Fault> {
        types::test(self.definitions, name.namespace.as_deref(), &name.name)
            .ok_or_else(|| Fault::semantic(at, "Expected the name of a type of FHIR or of FHIRPath"))
    }

    /// The type that `as` asks for. In the expressions of definitions `as String` has long meant FHIR's own string.
    fn cast(&self, at: u32, name: &TypeName) -> Result<TypeTest, Fault> {
        let test = self.type_test(at, name)?;
        if let (TypeTest::System(system), None, Mode::Lenient) = (test, &name.namespace, self.mode) {
            let mut own = String::from(&*name.name);
            own[..1].make_ascii_lowercase();
            return Ok(self.definitions.type_named(&own).map_or(test, |id| TypeTest::Either(system, id)));
        }
        Ok(test)
    }

    fn narrowed(&self, test: TypeTest, types: &Static) -> Static {
        // What is known to be narrower stays so.
        let kept = types.types.as_ref().map(|types| {
            types.iter().copied().filter(|ty| ty.passes(self.definitions, test, true)).collect::<Vec<_>>()
        });
        let types_of = kept.filter(|kept| !kept.is_empty()).unwrap_or_else(|| test.types(self.definitions));
        // An abstract type says little about its members.
        let is_abstract = |ty: &Type| {
            matches!(ty.name(self.definitions), "Resource" | "DomainResource" | "Element" | "BackboneElement")
        };
        let types_of = (!types_of.iter().any(is_abstract)).then_some(types_of);
        Static { types: types_of, ordered: types.ordered }
    }

    fn demand_order(&self, at: u32, types: &Static) -> Result<(), Fault> {
        if self.is_strict() && !types.ordered {
            return Err(Fault::semantic(
                at,
                "Expected items in an order: those of children() and descendants() have none",
            ));
        }
        Ok(())
    }

    fn variable(&mut self, at: u32, name: &str) -> Compiled {
        let text = match name {
            "context" => {
                let types = self.context.clone();
                return Ok((self.add(at, Operation::Variable(Variable::Context)), types));
            }
            "resource" => return Ok((self.add(at, Operation::Variable(Variable::Resource)), Static::ANYTHING)),
            "rootResource" => return Ok((self.add(at, Operation::Variable(Variable::RootResource)), Static::ANYTHING)),
            "ucum" => String::from("http://unitsofmeasure.org"),
            "sct" => String::from("http://snomed.info/sct"),
            "loinc" => String::from("http://loinc.org"),
            _ => match (name.strip_prefix("vs-"), name.strip_prefix("ext-")) {
                (Some(set), _) => format!("http://hl7.org/fhir/ValueSet/{set}"),
                (_, Some(extension)) => format!("http://hl7.org/fhir/StructureDefinition/{extension}"),
                _ => return Err(Fault::semantic(at, "Expected the name of a variable of the environment")),
            },
        };
        let literal = Operation::Literal(Literal::String(text.into()));
        Ok((self.add(at, literal), Static::system(System::String)))
    }

    /// A name that starts a path: a member of `$this`, or the type of `$this`.
    fn first_name(&mut self, at: u32, name: &str, this: &Static) -> Compiled {
        let input = self.add(at, Operation::This);
        let ty = name.starts_with(|first: char| first.is_ascii_uppercase()).then(|| self.definitions.type_named(name));
        let Some(id) = ty.flatten() else { return self.member(at, input, this, name) };
        let asked = Type::of(self.definitions, id);
        let types = match &this.types {
            None => Static::one(asked),
            Some(types) => {
                let fits = |ty: &&Type| ty.passes(self.definitions, TypeTest::Fhir(id), false);
                let fitting: Vec<Type> = types.iter().filter(fits).copied().collect();
                if fitting.is_empty() && self.is_strict() && !types.is_empty() {
                    return Err(Fault::semantic(
                        at,
                        format!("Expected no path that starts with {name} in this context"),
                    ));
                }
                Static { types: Some(fitting), ordered: this.ordered }
            }
        };
        Ok((self.add(at, Operation::Root(input, id)), types))
    }

    fn member(&mut self, at: u32, input: Id, from: &Static, name: &str) -> Compiled {
        let mut known = Vec::new();
        let mut found: Option<Vec<Type>> = Some(Vec::new());
        let mut is_there = false;
        for &ty in from.types.iter().flatten() {
            match self.members_of(ty, name) {
                Members::None => {}
                Members::Unknown => (is_there, found) = (true, None),
                Members::At(place, types) => {
                    is_there = true;
                    if let Type::Object(id, shape) = ty {
                        known.push(((id, shape), place));
                    }
                    found = found.zip(types).map(|(mut all, types)| {
                        all.extend(types);
                        all
                    });
                }
                Members::Types(types) => {
                    is_there = true;
                    if let Some(all) = &mut found {
                        all.extend(types);
                    }
                }
            }
        }
        match &from.types {
            None => found = None,
            // Nothing has every member: `{}.name`.
            Some(types) if types.is_empty() => {}
            Some(_) if !is_there && self.is_strict() => {
                return Err(Fault::semantic(
                    at,
                    format!("Expected the name of an element that there is here; {name} is none"),
                ));
            }
            Some(_) => {}
        }
        let step = Step { name: name.into(), id: tree::known(name), known: known.into() };
        let types = Static { types: found.filter(|types| types.len() <= TYPES_MAX), ordered: from.ordered };
        Ok((self.add(at, Operation::Member(input, step)), types))
    }

    fn members_of(&self, ty: Type, name: &str) -> Members {
        match ty {
            Type::Unknown => Members::Unknown,
            Type::Info => match name {
                "namespace" | "name" => Members::Types(vec![Type::System(System::String)]),
                _ => Members::None,
            },
            // Calculated quantities have the members that their FHIR form has.
            Type::System(System::Quantity) => match name {
                "value" => Members::Types(vec![Type::System(System::Decimal)]),
                "unit" | "code" => Members::Types(vec![Type::System(System::String)]),
                _ => Members::None,
            },
            Type::System(_) => Members::None,
            Type::Primitive(_) => {
                let element = Type::Object(self.definitions.element(), 0);
                match self.members_of(element, name) {
                    Members::At(_, types) => types.map_or(Members::Unknown, Members::Types),
                    other => other,
                }
            }
            Type::Object(..) => {
                let Some(place) = ty.place(self.definitions, name) else { return Members::None };
                let types = match place {
                    Place::Slot { kind, .. } => ty.at(kind).map(|found| vec![found]),
                    Place::Choice(field) => {
                        let shape = ty.shape(self.definitions);
                        let slots = shape.into_iter().flat_map(|shape| shape.slots_of(field));
                        slots.map(|slot| ty.at(slot.kind)).collect()
                    }
                };
                Members::At(place, types)
            }
        }
    }

    fn call(&mut self, at: u32, input: Option<&Expr>, name: &str, arguments: &[Expr], this: &Static) -> Compiled {
        let Some((function, counts)) = Function::named(name) else {
            return Err(Fault::semantic(at, format!("Expected the name of a function; {name} is none")));
        };
        if !counts.contains(&arguments.len()) {
            let text = format!("Expected {} to {} arguments of {name}", counts.start(), counts.end());
            return Err(Fault::semantic(at, text));
        }
        let (input, types) = match input {
            Some(input) => self.expr(input, this)?,
            None => (self.add(at, Operation::This), this.clone()),
        };
        if function.needs_order() {
            self.demand_order(at, &types)?;
        }
        if function.needs_string() {
            self.demand_string(at, function, &types)?;
        }
        if function == Function::Sort {
            return self.sort(at, input, types, arguments);
        }
        if function.takes() == Takes::Type {
            let Some(name) = arguments.first().and_then(type_name) else {
                return Err(Fault::semantic(at, format!("Expected the name of a type in {name}")));
            };
            let test = self.type_test(at, &name)?;
            return Ok(match function {
                Function::Is => (self.add(at, Operation::Is(input, test)), Static::system(System::Boolean)),
                Function::As => {
                    let test = self.cast(at, &name)?;
                    (self.add(at, Operation::As(input, test)), self.narrowed(test, &types))
                }
                _ => (self.add(at, Operation::OfType(input, test)), self.narrowed(test, &types)),
            });
        }
        // `iif` on a path has that path's item for `$this`; so have the functions that run for each item.
        let inner = match function.takes() {
            Takes::Each if function == Function::Repeat || function == Function::Aggregate => Static::ANYTHING,
            Takes::Each => types.clone(),
            Takes::Values | Takes::Type => this.clone(),
        };
        if function == Function::Repeat {
            // Once with the types of the input, for the sake of its mistakes; what it finds further down is not known.
            let mark = self.operations.len();
            if let Some(argument) = arguments.first()
                && argument.depth < REPEAT_CHECKED_DEPTH
            {
                self.expr(argument, &types)?;
            }
            self.operations.truncate(mark);
        }
        let mut ids = Vec::with_capacity(arguments.len());
        let mut given = Vec::with_capacity(arguments.len());
        for (place, argument) in arguments.iter().enumerate() {
            // The name of a trace and the start of an aggregate are values.
            let is_value = matches!((function, place), (Function::Trace, 0) | (Function::Aggregate, 1));
            let (id, types) = self.expr(argument, if is_value { this } else { &inner })?;
            ids.push(id);
            given.push(types);
        }
        let result = self.result(function, types, &given);
        if let Some(operation) = Self::pattern(at, function, input, arguments, &ids)? {
            return Ok((self.add(at, operation), result));
        }
        Ok((self.add(at, Operation::Call(function, input, ids.into())), result))
    }

    fn result(&self, function: Function, input: Static, given: &[Static]) -> Static {
        let anything = |ordered| Static { types: None, ordered };
        match function.gives() {
            Gives::One(system) => Static::system(system),
            Gives::Input => Static { ordered: input.ordered || function == Function::Single, ..input },
            Gives::Argument => {
                let types = given.first().and_then(|given| given.types.clone());
                Static { types, ordered: input.ordered && given.first().is_none_or(|given| given.ordered) }
            }
            Gives::Both => given.first().map_or(Static::ANYTHING, |given| input.both(given)),
            Gives::Anything => anything(!matches!(function, Function::Children | Function::Descendants)),
            Gives::Special => match function {
                Function::Extension => {
                    let extension = self.definitions.type_named("Extension");
                    extension.map_or(Static::ANYTHING, |id| Static::one(Type::Object(id, 0)))
                }
                Function::Type => Static::one(Type::Info),
                // `iif`: what either branch gives.
                _ => match given {
                    [_, then] => then.clone(),
                    [_, then, otherwise] => then.clone().both(otherwise),
                    _ => Static::ANYTHING,
                },
            },
        }
    }

    fn demand_string(&self, at: u32, function: Function, types: &Static) -> Result<(), Fault> {
        let could_be = |ty: &Type| matches!(ty, Type::System(_) | Type::Primitive(_) | Type::Unknown);
        let Some(types) = types.types.as_ref().filter(|types| !types.is_empty()) else { return Ok(()) };
        if self.is_strict() && !types.iter().any(could_be) {
            return Err(Fault::semantic(at, format!("Expected strings for {}", function.name())));
        }
        Ok(())
    }

    /// Each key is an expression; a minus in front sorts downwards.
    fn sort(&mut self, at: u32, input: Id, types: Static, arguments: &[Expr]) -> Compiled {
        let mut keys = Vec::with_capacity(arguments.len());
        for argument in arguments {
            let (key, descending) = match &argument.node {
                Node::Sign(true, key) => (&**key, true),
                _ => (argument, false),
            };
            keys.push((self.expr(key, &types)?.0, descending));
        }
        let types = Static { ordered: true, ..types };
        Ok((self.add(at, Operation::Sort(input, keys.into())), types))
    }

    /// A function on a regular expression, if that is written out: then it is built here, once.
    fn pattern(
        at: u32,
        function: Function,
        input: Id,
        arguments: &[Expr],
        ids: &[Id],
    ) -> Result<Option<Operation>, Fault> {
        let is_pattern = matches!(function, Function::Matches | Function::MatchesFull | Function::ReplaceMatches);
        let Some(Node::Literal(Literal::String(pattern))) = arguments.first().map(|argument| &argument.node) else {
            return Ok(None);
        };
        if !is_pattern {
            return Ok(None);
        }
        let regex = text::regex(pattern, function == Function::MatchesFull);
        let regex =
            regex.ok_or_else(|| Fault::semantic(at, "Expected a regular expression that is understood here"))?;
        Ok(Some(Operation::Pattern(function, input, Box::new(regex), ids.get(1).copied())))
    }
}

/// The argument of `repeat` is compiled twice up to this depth, so that nested ones do not double without end.
const REPEAT_CHECKED_DEPTH: u16 = 8;

/// What a type has under a name.
enum Members {
    None,
    /// What it has cannot be told.
    Unknown,
    /// Here; of these types, if they are known.
    At(Place, Option<Vec<Type>>),
    Types(Vec<Type>),
}

/// A type written as an argument: `Patient`, `FHIR.Patient`.
fn type_name(expr: &Expr) -> Option<TypeName> {
    let Node::Member(namespace, name) = &expr.node else { return None };
    let namespace = match namespace.as_deref().map(|namespace| &namespace.node) {
        None => None,
        Some(Node::Member(None, namespace)) => Some(namespace.clone()),
        Some(_) => return None,
    };
    Some(TypeName { namespace, name: name.clone() })
}
