//! Templates at work.

use std::collections::BTreeMap;
use std::rc::Rc;

use melange_remote_sdk::error::{Error, Result};

use super::parse::{Base, Node, Operand, Pipeline};
use super::{RESULT_BYTES_MAX, STEPS_MAX, Value, data, functions, wrong};

pub(super) struct Machine<'t> {
    template: &'t str,
    root: &'t Value,
    variables: Vec<(String, Value)>,
    text: String,
    steps: usize,
}

/// What a block ended with.
#[derive(PartialEq, Eq, Clone, Copy)]
enum Flow {
    On,
    Break,
    Continue,
}

impl<'t> Machine<'t> {
    pub(super) fn new(template: &'t str, root: &'t Value) -> Self {
        Self { template, root, variables: Vec::new(), text: String::new(), steps: 0 }
    }

    pub(super) fn render(mut self, nodes: &[Node]) -> Result<String> {
        let root = self.root.clone();
        self.nodes(nodes, &root)?;
        Ok(self.text)
    }

    fn wrong<T>(&self, at: usize, message: impl std::fmt::Display) -> Result<T> {
        Err(wrong(self.template, at, message))
    }

    fn step(&mut self) -> Result<()> {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err(Error::invalid("the template takes too long").hint("look for loops inside of loops"));
        }
        if self.text.len() > RESULT_BYTES_MAX {
            return Err(Error::invalid("the template's result is too large"));
        }
        Ok(())
    }

    /// Works on a block, whose variables end with it.
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow> {
        let known = self.variables.len();
        let flow = self.all(nodes, dot);
        self.variables.truncate(known);
        flow
    }

    fn all(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow> {
        for node in nodes {
            self.step()?;
            let flow = match node {
                Node::Text(text) => {
                    self.text.push_str(text);
                    Flow::On
                }
                Node::Show(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    if pipeline.variables.is_empty() {
                        value.print_to(&mut self.text);
                    }
                    Flow::On
                }
                Node::If(pipeline, then, otherwise) => self.branch(pipeline, then, otherwise, dot, false)?,
                Node::With(pipeline, then, otherwise) => self.branch(pipeline, then, otherwise, dot, true)?,
                Node::Range(pipeline, body, otherwise) => self.range(pipeline, body, otherwise, dot)?,
                Node::Break => Flow::Break,
                Node::Continue => Flow::Continue,
            };
            if flow != Flow::On {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    fn branch(
        &mut self,
        pipeline: &Pipeline,
        then: &[Node],
        otherwise: &[Node],
        dot: &Value,
        moves: bool,
    ) -> Result<Flow> {
        let known = self.variables.len();
        let value = self.pipeline(pipeline, dot)?;
        let flow = match value.is_true() {
            true => self.nodes(then, if moves { &value } else { dot }),
            false => self.nodes(otherwise, dot),
        };
        self.variables.truncate(known);
        flow
    }

    fn range(&mut self, pipeline: &Pipeline, body: &[Node], otherwise: &[Node], dot: &Value) -> Result<Flow> {
        let known = self.variables.len();
        let value = self.commands(pipeline, dot)?;
        let count = match &value {
            Value::List(items) => items.len(),
            Value::Map(map) => map.len(),
            Value::Number(number) => usize::try_from(*number).unwrap_or(0),
            Value::Nil | Value::Missing => 0,
            other => {
                return self
                    .wrong(pipeline.at, format!("`range` needs a list or a map, not {}", other.kind()));
            }
        };
        let mut entries: Box<dyn Iterator<Item = (Value, Value)>> = match &value {
            Value::List(items) => Box::new((0_i64..).map(Value::Number).zip(items.iter().cloned())),
            Value::Map(map) => Box::new(map.iter().map(|(key, value)| (Value::text(key), value.clone()))),
            _ => Box::new((0_i64..).take(count).map(|index| (Value::Number(index), Value::Number(index)))),
        };
        if count == 0 {
            return self.nodes(otherwise, dot);
        }
        for _ in 0..count {
            let Some((key, item)) = entries.next() else { break };
            self.step()?;
            match &pipeline.variables[..] {
                [one] => self.set(pipeline, one, item.clone())?,
                [first, second] => {
                    self.set(pipeline, first, key)?;
                    self.set(pipeline, second, item.clone())?;
                }
                _ => {}
            }
            let flow = self.nodes(body, &item)?;
            self.variables.truncate(known);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::On)
    }

    fn set(&mut self, pipeline: &Pipeline, name: &str, value: Value) -> Result<()> {
        if pipeline.declares {
            self.variables.push((name.to_owned(), value));
            return Ok(());
        }
        match self.variables.iter_mut().rev().find(|(known, _)| known == name) {
            Some((_, old)) => {
                *old = value;
                Ok(())
            }
            None => self.wrong(pipeline.at, format!("there is no variable `${name}`")),
        }
    }

    /// The value of a pipeline, which its variables get too.
    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value> {
        let value = self.commands(pipeline, dot)?;
        if let Some(name) = pipeline.variables.first() {
            self.set(pipeline, name, value.clone())?;
        }
        Ok(value)
    }

    fn commands(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value> {
        let mut last = None;
        for command in &pipeline.commands {
            last = Some(self.command(command, last, dot)?);
        }
        Ok(last.unwrap_or(Value::Nil))
    }

    fn command(&mut self, command: &[Operand], last: Option<Value>, dot: &Value) -> Result<Value> {
        self.step()?;
        let Some((first, arguments)) = command.split_first() else { return Ok(Value::Nil) };
        let Base::Function(name) = &first.base else {
            if !arguments.is_empty() || last.is_some() {
                return self.wrong(first.at, "only functions take values behind them");
            }
            return self.operand(first, dot);
        };
        // These do not look at what is behind the one that decides.
        if let "and" | "or" = name.as_str() {
            let stops_at = name == "or";
            let mut value = None;
            for argument in arguments {
                let next = self.operand(argument, dot)?;
                let decides = next.is_true() == stops_at;
                value = Some(next);
                if decides {
                    return Ok(value.unwrap_or(Value::Nil));
                }
            }
            return match last.or(value) {
                Some(value) => Ok(value),
                None => self.wrong(first.at, format!("`{name}` needs a value")),
            };
        }
        let mut values = arguments.iter().map(|one| self.operand(one, dot)).collect::<Result<Vec<_>>>()?;
        values.extend(last);
        let room = RESULT_BYTES_MAX.saturating_sub(self.text.len());
        functions::call(name, &values, room).or_else(|message| self.wrong(first.at, message))
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value> {
        self.step()?;
        let mut value = match &operand.base {
            Base::Constant(value) => value.clone(),
            Base::Dot => dot.clone(),
            Base::Variable(name) if name.is_empty() => self.root.clone(),
            Base::Variable(name) => match self.variables.iter().rev().find(|(known, _)| known == name) {
                Some((_, value)) => value.clone(),
                None => return self.wrong(operand.at, format!("there is no variable `${name}`")),
            },
            Base::Function(_) => self.command(std::slice::from_ref(operand), None, dot)?,
            Base::Parenthesis(pipeline) => {
                let known = self.variables.len();
                let value = self.pipeline(pipeline, dot);
                self.variables.truncate(known);
                value?
            }
        };
        for name in &operand.fields {
            value = self.field(operand.at, &value, name)?;
        }
        Ok(value)
    }

    fn field(&self, at: usize, value: &Value, name: &str) -> Result<Value> {
        match value {
            Value::Struct(of, fields) => {
                let found = fields.iter().find(|(known, _)| *known == name);
                let found = found.or_else(|| fields.iter().find(|(known, _)| plain(known) == plain(name)));
                if let Some((_, value)) = found {
                    return Ok(value.clone());
                }
                if let Some(value) = data::method(of, fields, name) {
                    return Ok(value);
                }
                let known: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
                self.wrong(at, format!("there is no field `{name}`; there are {}", known.join(", ")))
            }
            Value::Map(map) => Ok(key(map, name).unwrap_or(Value::Missing)),
            Value::Nil => self.wrong(at, format!("`{name}` is a field of something that is not there")),
            other => self.wrong(at, format!("`{name}` is a field of {}, which has none", other.kind())),
        }
    }
}

fn key(map: &Rc<BTreeMap<String, Value>>, name: &str) -> Option<Value> {
    map.get(name).cloned()
}

/// A name without what tells the names of Go from those of definitions.
pub(super) fn plain(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '-' | '_')).flat_map(char::to_lowercase).collect()
}
