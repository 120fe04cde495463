"""The home as a Dagster resource."""

import dagster as dg

from boucle_adapters.home import Home
from boucle_adapters.settings import Settings


class HomeResource(dg.ConfigurableResource[Home]):
    """Opens the ports of one `$BOUCLE_HOME`; each is opened when it is first used."""

    home: str
    state_url: str = ""
    mlflow_tracking_uri: str = ""

    @classmethod
    def of(cls, settings: Settings) -> "HomeResource":
        """The resource for these settings."""
        return cls(
            home=str(settings.home_dir),
            state_url=settings.state_url,
            mlflow_tracking_uri=settings.mlflow_tracking_uri,
        )

    def connect(self) -> Home:
        """The ports."""
        given = {"home": self.home, "state_url": self.state_url, "mlflow_tracking_uri": self.mlflow_tracking_uri}
        return Home(Settings().model_copy(update={**given, "home": Settings(home=self.home).home_dir}))
