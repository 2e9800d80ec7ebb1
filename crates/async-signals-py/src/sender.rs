//! Senders as they cross the wire, and the label by which they match there.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt, PyString, PyType};

use async_signals::protocol::json::Limits;

use crate::classes::{classes, is_a, model};
use crate::encode::{Encoder, our_marker};
use crate::fault::{At, Checked, Fault, Step};
use crate::names::class_name;
use crate::reference::Reference;

impl Encoder<'_> {
    /// Writes a sender. What may be one: None, a bool, int, str or enum
    /// member, a class, and a model instance that is saved.
    pub(crate) fn sender(&mut self, sender: &Bound<'_, PyAny>) -> Checked<()> {
        self.sender_value(sender).at(|| Step::Name("sender".into()))
    }

    fn sender_value(&mut self, sender: &Bound<'_, PyAny>) -> Checked<()> {
        let py = sender.py();
        if sender.is_none() {
            return Ok(self.json.null()?);
        }
        if let Ok(class) = sender.cast::<PyType>() {
            return self.sender_class(class);
        }
        let classes = classes(py)?;
        if let Ok(text) = sender.cast::<PyString>()
            && !is_a(sender, &classes.enumeration)
        {
            // Whatever its class: a sender matches by what it says.
            return self.text(text);
        }
        // A bool is an int.
        let plain = sender.is_instance_of::<PyInt>()
            || sender.is_instance_of::<Reference>()
            || is_a(sender, &classes.enumeration);
        if plain {
            return self.value(sender);
        }
        if let Some(model) = model(py)
            && sender.is_instance(model.bind(py))?
        {
            return self.model_instance(sender);
        }
        let class = sender.get_type().qualname()?;
        Err(Fault::type_error(format!(
            "{class} cannot be a sender across processes; send None, a class, a saved model instance, \
             a text, a whole number or an enum member"
        )))
    }

    fn sender_class(&mut self, class: &Bound<'_, PyType>) -> Checked<()> {
        let py = class.py();
        if let Some(model) = model(py)
            && class.is_subclass(model.bind(py))?
            && let Some(meta) = class.getattr_opt(intern!(py, "_meta"))?
            // Abstract models have no app of their own and are in no registry.
            && !meta.getattr(intern!(py, "abstract"))?.is_truthy()?
        {
            self.json.open_frame(our_marker!("model_class"))?;
            self.text(meta.getattr(intern!(py, "label"))?.cast()?)?;
        } else {
            self.json.open_frame(our_marker!("class"))?;
            self.json.string(&class_name(class)?)?;
        }
        Ok(self.json.close_frame("]}")?)
    }
}

/// What a sender is on the wire; `None` for what matches by identity only.
pub(crate) fn label(sender: &Bound<'_, PyAny>) -> Option<Vec<u8>> {
    if sender.is_none() {
        return None;
    }
    let mut encoder = Encoder::new(sender.py(), Limits::default()).ok()?;
    encoder.sender(sender).ok()?;
    Some(encoder.json.finish())
}

/// A sender's label: two senders match if they are identical or their labels
/// are equal, and labels are equal exactly if the senders are equal on the
/// wire (so 1 and True differ). None for a sender that has none (None itself,
/// and whatever cannot be sent): it matches by identity only.
#[pyfunction]
fn sender_label<'py>(sender: &Bound<'py, PyAny>) -> Option<Bound<'py, PyBytes>> {
    label(sender).map(|label| PyBytes::new(sender.py(), &label))
}

/// The sender as JSON, as it stands in a task's arguments.
#[pyfunction]
fn encode_sender<'py>(sender: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    let py = sender.py();
    let mut encoder = Encoder::new(py, Limits::default())?;
    encoder.sender(sender).map_err(|fault| fault.into_send_error(py))?;
    Ok(PyBytes::new(py, &encoder.json.finish()))
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(sender_label, module)?)?;
    module.add_function(wrap_pyfunction!(encode_sender, module)?)
}
