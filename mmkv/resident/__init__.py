"""The resident mode, `retrieve_frames="all"`: every answer attends to the whole packed past."""

from mmkv.resident.answer import ResidentPass
from mmkv.resident.past import FarPast, Resident, check_resident

__all__ = ["FarPast", "Resident", "ResidentPass", "check_resident"]
