//! A process of the store: the real text of the library in a Lua of the same version, over a small
//! imitation of the commands that it uses.

use crate::model::Utc;
use crate::store::{Question, QuestionTerms, Said, SaidValue};
use mlua::{Lua, Table, Value, Variadic};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

const LIBRARY: &str = include_str!("../tollgate.lua");

/// What a process keeps beside the library's variables: the keys, and the machine's wall clock.
#[derive(Default)]
pub(crate) struct Machine {
    /// The wall clock in microseconds, which the test moves.
    pub wall_us: Cell<i64>,
    keys: RefCell<Keys>,
    /// The commands that the library gave.
    pub commands: Cell<u64>,
    loads: Cell<u64>,
}

#[derive(Default, Clone)]
struct Keys {
    hashes: HashMap<String, HashMap<String, String>>,
    lists: HashMap<String, VecDeque<String>>,
    /// In milliseconds of the wall clock, as a real store has it: a clock that jumps ends keys.
    expires: HashMap<String, i64>,
}

impl Machine {
    pub(crate) fn flush_all(&self) {
        *self.keys.borrow_mut() = Keys::default();
    }

    /// Takes over the keys of a primary, as a standby that follows it.
    pub(crate) fn copy_keys(&self, primary: &Self) {
        *self.keys.borrow_mut() = primary.keys.borrow().clone();
    }

    fn set_field(&self, key: &str, field: &str, value: &str) {
        let mut keys = self.keys.borrow_mut();
        let hash = keys.hashes.entry(key.to_owned()).or_default();
        hash.insert(field.to_owned(), value.to_owned());
    }

    fn call(&self, lua: &Lua, words: &[String]) -> mlua::Result<Value> {
        self.commands.set(self.commands.get() + 1);
        let mut keys = self.keys.borrow_mut();
        let now_ms = self.wall_us.get() / 1_000;
        let word = |nth: usize| words.get(nth).map_or("", String::as_str);
        let key = word(1).to_owned();
        if keys.expires.get(&key).is_some_and(|at| *at <= now_ms) {
            keys.expires.remove(&key);
            keys.lists.remove(&key);
        }
        let list = keys.lists.get(&key);
        let length = list.map_or(0, VecDeque::len);
        // An index may be counted from the end.
        let index = |nth: usize| {
            let index: i64 = word(nth).parse().unwrap();
            let length = i64::try_from(length).unwrap();
            if index < 0 { index + length } else { index }
        };
        let texts = |texts: Vec<Option<&String>>| -> mlua::Result<Value> {
            let table = lua.create_table()?;
            for (nth, text) in texts.into_iter().enumerate() {
                match text {
                    Some(text) => table.raw_set(nth + 1, text.as_str())?,
                    None => table.raw_set(nth + 1, false)?,
                }
            }
            Ok(Value::Table(table))
        };
        match word(0) {
            "TIME" => {
                let wall = self.wall_us.get();
                let (seconds, micros) = (wall / 1_000_000, wall % 1_000_000);
                texts(vec![Some(&seconds.to_string()), Some(&micros.to_string())])
            }
            "HMGET" => {
                let hash = keys.hashes.get(&key);
                let fields = words[2..].iter();
                texts(fields.map(|field| hash?.get(field)).collect())
            }
            "HSET" => {
                let hash = keys.hashes.entry(key).or_default();
                for pair in words[2..].chunks(2) {
                    hash.insert(pair[0].clone(), pair[1].clone());
                }
                Ok(Value::Integer(1))
            }
            "LLEN" => Ok(Value::Integer(i64::try_from(length).unwrap())),
            "LINDEX" => {
                let at = usize::try_from(index(2)).unwrap();
                match list.and_then(|list| list.get(at)) {
                    Some(text) => Ok(Value::String(lua.create_string(text)?)),
                    None => Ok(Value::Boolean(false)),
                }
            }
            "LRANGE" => {
                let (from, to) = (usize::try_from(index(2)).unwrap(), index(3) + 1);
                let to = usize::try_from(to).unwrap_or(0).min(length);
                let range = from.min(to)..to;
                texts(list.map_or(Vec::new(), |list| list.range(range).map(Some).collect()))
            }
            "RPUSH" => {
                let list = keys.lists.entry(key).or_default();
                list.extend(words[2..].iter().cloned());
                Ok(Value::Integer(i64::try_from(list.len()).unwrap()))
            }
            "LTRIM" => {
                assert_eq!(word(3), "-1");
                let drop = usize::try_from(index(2)).unwrap().min(length);
                keys.lists.entry(key).or_default().drain(..drop);
                Ok(Value::Boolean(true))
            }
            "PTTL" => Ok(Value::Integer(match keys.expires.get(&key) {
                _ if length == 0 => -2,
                None => -1,
                Some(at) => at - now_ms,
            })),
            "PEXPIRE" => {
                let lasts_ms: i64 = word(2).parse().unwrap();
                keys.expires.insert(key, now_ms + lasts_ms);
                Ok(Value::Integer(1))
            }
            other => panic!("the imitation has no {other}"),
        }
    }
}

/// One life of a process, or of the library in it.
pub(crate) struct StoreProcess {
    lua: Lua,
    admit: mlua::Function,
    /// As that of a replica it is another one at each connection.
    nonce: String,
    /// The number of the last question.
    asked: Cell<i64>,
    pub machine: Rc<Machine>,
}

impl StoreProcess {
    /// A process whose library is just loaded: its variables are new, the keys are the machine's.
    pub(crate) fn load(machine: &Rc<Machine>) -> Self {
        Self::load_text(machine, LIBRARY)
    }

    /// One that has another text.
    pub(crate) fn load_text(machine: &Rc<Machine>, library: &str) -> Self {
        let lua = Lua::new();
        let registered = Rc::new(RefCell::new(None));
        let admit = Rc::clone(&registered);
        let register = lua
            .create_function(move |_, (name, function): (String, mlua::Function)| {
                assert_eq!(name, "tollgate_admit_1");
                *admit.borrow_mut() = Some(function);
                Ok(())
            })
            .unwrap();
        let commands = Rc::clone(machine);
        let call = lua
            .create_function(move |lua, words: Variadic<Value>| {
                let words: Vec<String> = words.iter().map(argument).collect();
                commands.call(lua, &words)
            })
            .unwrap();
        let redis = lua.create_table().unwrap();
        redis.set("register_function", register).unwrap();
        redis.set("call", call).unwrap();
        lua.globals().set("redis", redis).unwrap();
        // The first line is for the store: it is no Lua.
        let (first, text) = library.split_once('\n').unwrap();
        assert_eq!(first, "#!lua name=tollgate_1");
        lua.load(text).exec().unwrap();
        let admit = registered.borrow_mut().take().unwrap();
        machine.loads.set(machine.loads.get() + 1);
        Self {
            lua,
            admit,
            nonce: format!("replica-{}", machine.loads.get()),
            asked: Cell::new(0),
            machine: Rc::clone(machine),
        }
    }

    /// What a library of a newer version leaves when it takes the bucket over.
    pub(crate) fn is_taken_by_version(&self, version: u32) {
        self.machine.set_field("{tg}:e", "owner", "another");
        self.machine
            .set_field("{tg}:e", "version", &version.to_string());
    }

    /// Runs the function.
    pub(crate) fn ask(&self, question: &Question, terms: QuestionTerms, hold_us: i64) -> Said {
        let number = self.asked.get() + 1;
        let values = self.values(question, terms, hold_us);
        Said::read(&values, question, number).unwrap()
    }

    /// Runs the function and gives the answer as the store gives it.
    pub(crate) fn values(
        &self,
        question: &Question,
        terms: QuestionTerms,
        hold_us: i64,
    ) -> Vec<SaidValue> {
        let strings = |texts: &[String]| -> Table {
            let texts = texts
                .iter()
                .map(|text| self.lua.create_string(text).unwrap());
            self.lua.create_sequence_from(texts).unwrap()
        };
        self.asked.set(self.asked.get() + 1);
        let QuestionTerms { epoch, deadline } = terms;
        let keys = [
            "{tg}:e".to_owned(),
            format!("{{tg}}:w:{}:{epoch}", question.limiter),
        ];
        let args = [
            epoch.to_string(),
            deadline.0.to_string(),
            question.quota.to_string(),
            question.n.to_string(),
            question.max_delay.as_micros().to_string(),
            self.nonce.clone(),
            hold_us.to_string(),
            self.asked.get().to_string(),
        ];
        let reply: Table = self.admit.call((strings(&keys), strings(&args))).unwrap();
        let value = |value: Value| match value {
            Value::String(text) => SaidValue::Text(text.as_bytes().to_vec()),
            Value::Integer(int) => SaidValue::Int(int),
            // A real store cuts off what stands behind the point.
            Value::Number(number) => SaidValue::Int(number as i64),
            other => panic!("{other:?} in a reply"),
        };
        let values = reply.sequence_values::<Value>();
        values.map(|item| value(item.unwrap())).collect()
    }

    /// The instant of the store's machine.
    pub(crate) fn wall(&self) -> Utc {
        Utc(self.machine.wall_us.get())
    }
}

/// An argument of a command as the store's Lua writes it.
fn argument(value: &Value) -> String {
    match value {
        Value::String(text) => text.to_str().unwrap().to_owned(),
        Value::Integer(int) => int.to_string(),
        Value::Number(number) if number.fract() == 0.0 => format!("{number:.0}"),
        other => panic!("{other:?} is no argument of a command"),
    }
}
