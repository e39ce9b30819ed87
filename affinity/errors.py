"""What this package refuses, and how each refusal is called.

```
AffinityRefused
├── EventInFuture             422  occurred_at_in_future
├── EventTooOld               422  occurred_at_too_old
├── BodyTooLarge              413  body_too_large
├── LogUnwritable             503  navigation_unwritable (retryable)
├── AudienceRefused           422  audience_empty, audience_ambiguous, audience_incomplete, audience_contradictory,
│                                  audience_too_deep, segment_unknown, attribute_unknown, attribute_type_differs,
│                                  category_unknown, rfm_class_unknown, lifecycle_unknown
├── PatternRefused            422  pattern_contradictory, pattern_unsatisfiable, category_unknown
├── AttributeTypeDiffers      422  attribute_type_differs
├── LinkRefused               422  link_to_itself; 409 link_exists, link_chained
├── LinkUnknown               404  link_unknown
├── ProfileUnknown            404  profile_unknown
├── ModelRefused              500  model_refused: a file of another version, or damaged
├── RecordFileRefused         500  record_file_refused: of another version or other settings, or damaged
├── TrainingRefused           422  training_empty
└── FeedRefused               422  feed_unreadable: no line of the file can be read
```
"""


class AffinityRefused(Exception):  # a refusal, not an error of ours
    """A refusal with a stable code; the message says the rule and what came instead."""

    code: str = "refused"
    status: int = 422
    retryable: bool = False

    def __init__(
        self, message: str, pointer: str | None = None, *, code: str | None = None, status: int | None = None
    ) -> None:
        super().__init__(message)
        self.pointer = pointer
        if code is not None:
            self.code = code
        if status is not None:
            self.status = status


class EventInFuture(AffinityRefused):
    """The event is said to happen later than clocks can differ."""

    code = "occurred_at_in_future"


class EventTooOld(AffinityRefused):
    """The event comes later than late events may; history is imported instead."""

    code = "occurred_at_too_old"


class BodyTooLarge(AffinityRefused):
    """The body is over its limit."""

    code = "body_too_large"
    status = 413


class LogUnwritable(AffinityRefused):
    """The navigation log cannot be written now; nothing of the batch was."""

    code = "navigation_unwritable"
    status = 503
    retryable = True


class AudienceRefused(AffinityRefused):
    """The audience's tree says nothing, too much, or names what is not there."""

    code = "audience_empty"


class PatternRefused(AffinityRefused):
    """The pattern can never hold, or names what is not there."""

    code = "pattern_contradictory"


class AttributeTypeDiffers(AffinityRefused):
    """A custom attribute comes with another type than the first feed gave it."""

    code = "attribute_type_differs"


class LinkRefused(AffinityRefused):
    """The visitor cannot be joined to that customer."""

    code = "link_to_itself"


class LinkUnknown(AffinityRefused):
    """The visitor is not linked to anybody."""

    code = "link_unknown"
    status = 404


class ProfileUnknown(AffinityRefused):
    """Nothing is kept of that visitor's profile."""

    code = "profile_unknown"
    status = 404


class ModelRefused(AffinityRefused):
    """The model's file is of another version, or damaged."""

    code = "model_refused"
    status = 500


class RecordFileRefused(AffinityRefused):
    """The record file does not fit, or is damaged: the navigation log is read instead."""

    code = "record_file_refused"
    status = 500


class TrainingRefused(AffinityRefused):
    """There is nothing to learn from."""

    code = "training_empty"


class FeedRefused(AffinityRefused):
    """The file is no feed."""

    code = "feed_unreadable"
