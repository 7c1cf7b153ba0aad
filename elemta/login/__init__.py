"""Who may send, and as whom: what is kept of a password, and how guesses are slowed down.

Where users are kept, and how they are asked, is for plugins of the kind "authentication".
"""

from typing import TYPE_CHECKING

from elemta.login.hashes import check_hash as check_hash
from elemta.login.hashes import costs as costs
from elemta.login.hashes import decoy as decoy
from elemta.login.hashes import hash_app_password as hash_app_password
from elemta.login.hashes import hash_password as hash_password
from elemta.login.hashes import make_app_password as make_app_password
from elemta.login.hashes import verify_password as verify_password
from elemta.login.patterns import owns as owns
from elemta.login.preparing import prepare_name as prepare_name
from elemta.login.preparing import prepare_password as prepare_password
from elemta.login.remembered import Remembered as Remembered
from elemta.login.scram import ScramVerifier as ScramVerifier
from elemta.login.usage import Usage as Usage
from elemta.login.usage import merged as merged
from elemta.login.usage import usage_name as usage_name
from elemta.login.users import App as App
from elemta.login.users import User as User
from elemta.login.users import UserFile as UserFile
from elemta.login.users import UserFileError as UserFileError
from elemta.login.users import check_app_name as check_app_name

if TYPE_CHECKING:
    from elemta.login.guesses import Guesses as Guesses
    from elemta.login.guesses import Locked as Locked
else:

    def __getattr__(name: str) -> object:
        """What only a server needs: it brings Trio, and `elemta user` would wait for that."""
        if name not in ("Guesses", "Locked"):
            raise AttributeError(name)
        from elemta.login import guesses

        return getattr(guesses, name)
