//! What was put into memory and must be taken out again unless a second look at its row agrees.

/// Takes out what was put in when it is dropped, be it that the second look failed, disagreed, or was given up.
pub(crate) struct Unconfirmed<F: FnMut()> {
    take_out: F,
    is_confirmed: bool,
}

impl<F: FnMut()> Unconfirmed<F> {
    pub(crate) fn new(take_out: F) -> Self {
        Self { take_out, is_confirmed: false }
    }

    /// It may stay.
    pub(crate) fn confirm(mut self) {
        self.is_confirmed = true;
    }
}

impl<F: FnMut()> Drop for Unconfirmed<F> {
    fn drop(&mut self) {
        if !self.is_confirmed {
            (self.take_out)();
        }
    }
}
