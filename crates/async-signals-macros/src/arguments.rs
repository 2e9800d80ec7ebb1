//! What stands in the parentheses.

use syn::{
    Error, Expr, Ident, Result, Token,
    parse::{Parse, ParseStream},
};

const KEYS: [&str; 4] = ["sender", "dispatch_uid", "name", "retry"];

/// The signals, and how to connect to them.
pub(crate) struct Arguments {
    pub(crate) signals: Vec<Expr>,
    pub(crate) options: Vec<(Ident, Expr)>,
}

impl Parse for Arguments {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        if input.is_empty() || input.peek(Ident) && input.peek2(Token![=]) {
            return Err(Error::new(input.span(), "#[receiver] needs a signal first: #[receiver(ORDER_PLACED)]"));
        }
        let signals = match input.parse()? {
            Expr::Array(several) => several.elems.into_iter().collect(),
            one => vec![one],
        };
        let mut options: Vec<(Ident, Expr)> = Vec::new();
        while !input.is_empty() {
            input.parse::<Token![,]>()?;
            if input.is_empty() {
                break;
            }
            let key: Ident = input.parse()?;
            if !KEYS.iter().any(|known| key == known) {
                let text = format!("#[receiver] has no option `{key}`; it has {}", KEYS.join(", "));
                return Err(Error::new(key.span(), text));
            }
            if options.iter().any(|(other, _)| *other == key) {
                return Err(Error::new(key.span(), format!("`{key}` is given twice")));
            }
            input.parse::<Token![=]>()?;
            options.push((key, input.parse()?));
        }
        Ok(Self { signals, options })
    }
}
