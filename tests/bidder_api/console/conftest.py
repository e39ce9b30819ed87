from tests.bidder_api.conftest import shared_world as shared_world  # fixtures
from tests.bidder_api.conftest import world as world
