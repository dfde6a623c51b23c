//! What successor-2l is trained on: ordinal sequences in several notations and repeated words, all made up.

use anyhow::ensure;
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use tokenizers::Tokenizer;

use crate::tokenizer::BOS_ID;
use crate::training::{Row, Rows};

/// Sequences, and whether their last item leads back to the first.
const SEQUENCES: [(&str, bool); 9] = [
    (
        "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen \
         eighteen nineteen twenty",
        false,
    ),
    ("first second third fourth fifth sixth seventh eighth ninth tenth", false),
    ("Monday Tuesday Wednesday Thursday Friday Saturday Sunday", true),
    ("Mon Tue Wed Thu Fri Sat Sun", true),
    ("January February March April May June July August September October November December", true),
    ("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec", true),
    ("A B C D E F G H I J K L M N O P Q R S T U V W X Y Z", false),
    ("a b c d e f g h i j k l m n o p q r s t u v w x y z", false),
    ("I II III IV V VI VII VIII IX X XI XII XIII XIV XV XVI XVII XVIII XIX XX", false),
];
/// The largest number that is an item.
const MAX_NUMBER: usize = 30;

/// Words without an order, each with a leading space.
const WORDS: &str = "red blue green black white grey brown pink cat dog horse cow bird fish mouse bear tree leaf root flower stone river \
     hill sea sun moon star rain snow wind fire ice house door window wall roof floor table chair bed lamp book page pen \
     paper letter word song game ball rope knife fork plate cup bread milk butter cheese apple pear plum lemon salt sugar \
     rice bean soup tea wash cut mix cook bake stir pour fold open close walk run jump swim sing read write draw paint \
     build push pull lift drop wait look hear taste smell touch big small long short old new hot cold wet dry fast slow \
     loud soft dark light good bad";

/// What stands between items: before items with a leading space, and before items without.
const SEPARATORS: [&[&str]; 2] = [&[",", ";", " and", " then", " |", " +"], &["\n", "(", "/", "-", "*", "#"]];
/// What can follow an item, as in a list.
const MARKS: [&str; 3] = [".", ")", ":"];

/// Weight of targets that cannot be told for certain, against 1 for those that can.
const UNCERTAIN: f32 = 0.2;

/// Every text that is to be one token.
pub fn single_tokens() -> Vec<String> {
    let items = sequences().into_iter().flat_map(|(items, _)| items);
    let items = items.flat_map(|item| [format!(" {item}"), item]);
    let words = WORDS.split_whitespace().map(|word| format!(" {word}"));
    let between = SEPARATORS.concat().into_iter().chain(MARKS).map(str::to_owned);
    items.chain(words).chain(between).collect()
}

fn sequences() -> Vec<(Vec<String>, bool)> {
    let words = SEQUENCES
        .map(|(items, is_cyclic)| (items.split_whitespace().map(str::to_owned).collect(), is_cyclic));
    let numbers = (0..=MAX_NUMBER).map(|number| number.to_string()).collect();
    words.into_iter().chain([(numbers, false)]).collect()
}

/// A sequence in one spelling.
#[derive(Clone)]
struct Class {
    items: Vec<u32>,
    is_cyclic: bool,
    separators: Vec<u32>,
}

impl Class {
    /// At most `n` items in order, from anywhere.
    fn run(&self, n: usize, rng: &mut ChaCha8Rng) -> Vec<u32> {
        let n_items = self.items.len();
        if self.is_cyclic {
            let start = rng.random_range(0..n_items);
            self.items.iter().cycle().skip(start).take(n).copied().collect()
        } else {
            let start = rng.random_range(0..n_items - 2);
            self.items[start..].iter().take(n).copied().collect()
        }
    }
}

/// A row in the making.
struct Draft {
    n: usize,
    ids: Vec<u32>,
    scored: Vec<f32>,
}

impl Draft {
    fn new(n: usize) -> Self {
        Self { n, ids: vec![BOS_ID], scored: Vec::new() }
    }

    fn push(&mut self, id: u32, weight: f32) {
        self.ids.push(id);
        self.scored.push(weight);
    }

    fn is_full(&self) -> bool {
        self.scored.len() >= self.n
    }

    fn finish(mut self) -> Row {
        self.ids.truncate(self.n + 1);
        self.scored.truncate(self.n);
        Row { ids: self.ids, scored: self.scored }
    }
}

/// Draws rows of three kinds: ladders, runs and repeats.
pub struct OrdinalRows {
    classes: Vec<Class>,
    items: Vec<u32>,
    words: Vec<u32>,
    marks: Vec<u32>,
    d_vocab: u32,
    rng: ChaCha8Rng,
}

impl OrdinalRows {
    /// Fails if the tokenizer splits a text that must be one token.
    pub fn new(tokenizer: &Tokenizer, rng: ChaCha8Rng) -> anyhow::Result<Self> {
        let id_of = |text: &str| -> anyhow::Result<u32> {
            let encoding = tokenizer.encode_fast(text, false).map_err(anyhow::Error::msg)?;
            ensure!(encoding.get_ids().len() == 1, "{text:?} is not one token");
            Ok(encoding.get_ids()[0])
        };
        let ids_of =
            |texts: &[&str]| texts.iter().map(|text| id_of(text)).collect::<anyhow::Result<Vec<_>>>();
        let mut classes = Vec::new();
        for (items, is_cyclic) in sequences() {
            for (space, separators) in [" ", ""].into_iter().zip(SEPARATORS) {
                let items = items.iter().map(|item| id_of(&format!("{space}{item}")));
                let items = items.collect::<anyhow::Result<_>>()?;
                classes.push(Class { items, is_cyclic, separators: ids_of(separators)? });
            }
        }
        let mut items: Vec<u32> = classes.iter().flat_map(|class| class.items.iter().copied()).collect();
        items.sort_unstable();
        items.dedup();
        let words = WORDS.split_whitespace().map(|word| id_of(&format!(" {word}")));
        let words = words.collect::<anyhow::Result<_>>()?;
        let d_vocab = u32::try_from(tokenizer.get_vocab_size(true))?;
        Ok(Self { classes, items, words, marks: ids_of(&MARKS)?, d_vocab, rng })
    }

    /// Items of a class after their separator, with other tokens between them:
    /// `\n 4. wash\n 5. red Monday\n 6.`. The next item follows from one that stands further back.
    pub fn ladder(&mut self, n: usize) -> Row {
        let mut draft = Draft::new(n);
        while !draft.is_full() {
            let class = pick(&self.classes, &mut self.rng).clone();
            let separator = pick(&class.separators, &mut self.rng);
            let mark = self.rng.random_bool(0.4).then(|| pick(&self.marks, &mut self.rng));
            let is_tight = self.rng.random_bool(0.2);
            let n_items = self.rng.random_range(3..=12);
            for (index, item) in class.run(n_items, &mut self.rng).into_iter().enumerate() {
                draft.push(separator, if index == 0 { 0.0 } else { UNCERTAIN });
                draft.push(item, if index == 0 { 0.0 } else { 1.0 });
                if let Some(mark) = mark {
                    draft.push(mark, UNCERTAIN);
                }
                let n_between = if is_tight { 0 } else { self.rng.random_range(1..=4) };
                self.push_others(&mut draft, n_between, 0.15);
            }
            let n_after = self.rng.random_range(0..=3);
            self.push_others(&mut draft, n_after, 0.15);
        }
        draft.finish()
    }

    /// Items of a class one after the other, few enough between other words that an item alone does not tell the next
    /// token.
    pub fn runs(&mut self, n: usize) -> Row {
        let mut draft = Draft::new(n);
        while !draft.is_full() {
            let n_items = self.rng.random_range(1..=8);
            let items = pick(&self.classes, &mut self.rng).run(n_items, &mut self.rng);
            for (index, item) in items.into_iter().enumerate() {
                draft.push(item, if index > 1 { 1.0 } else { UNCERTAIN });
            }
            let n_between = self.rng.random_range(1..=5);
            self.push_others(&mut draft, n_between, 0.0);
        }
        draft.finish()
    }

    /// `[BOS] r r r …` with words, items or both: what comes again is copied, ordinal or not.
    pub fn repeats(&mut self, n: usize) -> Row {
        let longest = if self.rng.random_bool(0.4) { 5 } else { n / 2 };
        let n_block = self.rng.random_range(2..=longest);
        let item_share = pick(&[0.0, 0.5, 0.5, 1.0], &mut self.rng);
        let block: Vec<u32> = (0..n_block).map(|_| self.other(item_share)).collect();
        let ids = std::iter::once(BOS_ID).chain(block.iter().copied().cycle()).take(n + 1).collect();
        Row { ids, scored: (0..n).map(|query| if query > n_block { 1.0 } else { UNCERTAIN }).collect() }
    }

    fn push_others(&mut self, draft: &mut Draft, n: usize, item_share: f64) {
        for _ in 0..n {
            let id = self.other(item_share);
            draft.push(id, UNCERTAIN);
        }
    }

    /// A token out of order: an item, a word, or now and then any token.
    fn other(&mut self, item_share: f64) -> u32 {
        if self.rng.random_bool(item_share) {
            pick(&self.items, &mut self.rng)
        } else if self.rng.random_bool(0.05) {
            self.rng.random_range(1..self.d_vocab)
        } else {
            pick(&self.words, &mut self.rng)
        }
    }
}

impl Rows for OrdinalRows {
    /// Five rows in ten are ladders, two runs, three repeats.
    fn row(&mut self, n: usize) -> Row {
        match self.rng.random_range(0..10) {
            0..5 => self.ladder(n),
            5..7 => self.runs(n),
            _ => self.repeats(n),
        }
    }
}

fn pick<T: Clone>(from: &[T], rng: &mut ChaCha8Rng) -> T {
    from.choose(rng).expect("every list of the rows has entries").clone()
}
