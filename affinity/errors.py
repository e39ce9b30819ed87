"""What this package refuses, and how each refusal is called.

```
AffinityRefused
├── EventInFuture             422  occurred_at_in_future
├── EventTooOld               422  occurred_at_too_old
├── BodyTooLarge              413  body_too_large
├── EventRefused              422  event_incomplete, too_many_items
├── ConsentUnreadable         422  consent_unreadable: no TC string of version 2
├── ErasureUnfinished         503  erasure_unfinished (retryable)
├── LogUnwritable             503  navigation_unwritable (retryable)
├── SharedStoreUnavailable    503  visitor_store_unavailable (retryable)
├── AudienceRefused           422  audience_empty, audience_ambiguous, audience_incomplete, audience_contradictory,
│                                  audience_too_deep, segment_unknown, attribute_unknown, attribute_type_differs,
│                                  category_unknown, rfm_class_unknown, lifecycle_unknown, clv_tier_unknown,
│                                  order_status_unknown, audience_name_unknown
├── SpecialCategoryRefused    422  special_category
├── PatternRefused            422  pattern_contradictory, pattern_unsatisfiable, pattern_too_long, category_unknown;
│                             409  pattern_targets_full
├── AttributeTypeDiffers      422  attribute_type_differs
├── LinkRefused               422  link_to_itself; 409 link_exists, link_chained
├── LinkUnknown               404  link_unknown
├── ProfileUnknown            404  profile_unknown
├── VisitorUnknown            404  visitor_unknown
├── ComputationDisturbed      503  computation_disturbed (retryable)
├── ModelRefused              500  model_refused: a file of another version, or damaged
├── RecordFileRefused         500  record_file_refused: of another version or other settings, or damaged
├── TrainingRefused           422  training_empty
├── TradeRefused              422  trade_empty, trade_too_large
├── FeedRefused               422  feed_unreadable: no line of the file can be read
└── VisitorStoreRefused       500  visitor_store_refused: at the start, where the library is missing
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


class EventRefused(AffinityRefused):
    """An event under GA4's names does not say what it must, or a batch of them becomes too many."""

    code = "event_incomplete"


class BodyTooLarge(AffinityRefused):
    """The body is over its limit."""

    code = "body_too_large"
    status = 413


class ConsentUnreadable(AffinityRefused):
    """The consent is neither an object nor a TC string that can be read."""

    code = "consent_unreadable"


class ErasureUnfinished(AffinityRefused):
    """Some of what was to be erased cannot be rewritten now; asking again goes on with it."""

    code = "erasure_unfinished"
    status = 503
    retryable = True


class LogUnwritable(AffinityRefused):
    """The navigation log cannot be written now; nothing of the batch was."""

    code = "navigation_unwritable"
    status = 503
    retryable = True


class SharedStoreUnavailable(AffinityRefused):
    """The server that visitors' state is shared through does not answer, or not in time."""

    code = "visitor_store_unavailable"
    status = 503
    retryable = True


class VisitorStoreRefused(AffinityRefused):
    """Visitors' state cannot be kept where the setting says."""

    code = "visitor_store_refused"
    status = 500


class AudienceRefused(AffinityRefused):
    """The audience's tree says nothing, too much, or names what is not there."""

    code = "audience_empty"


class SpecialCategoryRefused(AffinityRefused):
    """A segment or an attribute tells of health, religion, politics and the like."""

    code = "special_category"


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


class VisitorUnknown(AffinityRefused):
    """Nothing is held of that visitor."""

    code = "visitor_unknown"
    status = 404


class ComputationDisturbed(AffinityRefused):
    """Visitors were erased again and again while profiles were computed."""

    code = "computation_disturbed"
    status = 503
    retryable = True


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


class TradeRefused(AffinityRefused):
    """There is nothing to report on, or more than can be added up."""

    code = "trade_empty"
