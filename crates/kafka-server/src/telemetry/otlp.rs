//! The data points of OpenTelemetry's `MetricsData`, read from its protobuf form without building it: numbers of gauges and sums.

/// Why data can't be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed protobuf")]
pub(super) struct Malformed;

/// One number.
pub(super) struct Point<'a> {
    pub(super) name: &'a str,
    pub(super) value: f64,
    /// It counts from the last push on.
    pub(super) is_delta: bool,
}

enum Value<'a> {
    Number(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
}

/// Field by field of one message.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(Malformed)?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Malformed)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, Malformed> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().map_err(|_| Malformed)?)),
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
                Value::Bytes(self.take(len)?)
            }
            5 => {
                self.take(4)?;
                Value::Number(0)
            }
            _ => return Err(Malformed),
        };
        Ok(Some((tag >> 3, value)))
    }
}

/// Calls `visit` with every message in field `number` of `data`.
fn each_message<'a>(data: &'a [u8], number: u64, visit: &mut dyn FnMut(&'a [u8]) -> Result<(), Malformed>) -> Result<(), Malformed> {
    let mut fields = Fields(data);
    while let Some((field, value)) = fields.next()? {
        if let (true, Value::Bytes(message)) = (field == number, value) {
            visit(message)?;
        }
    }
    Ok(())
}

/// Calls `visit` with every data point of a `MetricsData`.
pub(super) fn each_point<'a>(data: &'a [u8], visit: &mut dyn FnMut(Point<'a>)) -> Result<(), Malformed> {
    // resource_metrics, scope_metrics, metrics
    each_message(data, 1, &mut |resource| {
        each_message(resource, 2, &mut |scope| each_message(scope, 2, &mut |metric| metric_points(metric, visit)))
    })
}

fn metric_points<'a>(metric: &'a [u8], visit: &mut dyn FnMut(Point<'a>)) -> Result<(), Malformed> {
    const NAME: u64 = 1;
    const GAUGE: u64 = 5;
    const SUM: u64 = 7;
    const DELTA: u64 = 1;
    let (mut name, mut data, mut is_sum) = (None, None, false);
    let mut fields = Fields(metric);
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (NAME, Value::Bytes(text)) => name = Some(std::str::from_utf8(text).map_err(|_| Malformed)?),
            (GAUGE | SUM, Value::Bytes(message)) => (data, is_sum) = (Some(message), field == SUM),
            _ => {}
        }
    }
    let (Some(name), Some(data)) = (name, data) else { return Ok(()) };
    let (mut points, mut temporality) = (Vec::new(), 0);
    let mut fields = Fields(data);
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (1, Value::Bytes(point)) => points.push(point),
            (2, Value::Number(number)) if is_sum => temporality = number,
            _ => {}
        }
    }
    for point in points {
        if let Some(value) = number_of(point)? {
            visit(Point { name, value, is_delta: temporality == DELTA });
        }
    }
    Ok(())
}

/// A data point's number: a double or an integer; `None` if it is neither, or no number.
fn number_of(point: &[u8]) -> Result<Option<f64>, Malformed> {
    const AS_DOUBLE: u64 = 4;
    const AS_INT: u64 = 6;
    let mut number = None;
    let mut fields = Fields(point);
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (AS_DOUBLE, Value::Fixed64(bits)) => number = Some(f64::from_bits(bits)),
            (AS_INT, Value::Fixed64(bits)) => number = Some(bits.cast_signed() as f64),
            _ => {}
        }
    }
    Ok(number.filter(|number| number.is_finite()))
}
