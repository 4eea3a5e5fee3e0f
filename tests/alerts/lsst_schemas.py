"""The Avro writer schemas of Fink's LSST packets."""

from __future__ import annotations

from functools import cache

from tests.alerts.schemas import LC_FEATURES, AvroSchema, alert_record, flattened, nullable_array, nullable_map, record

BANDS = "ugrizy"

_DIA_SOURCE = """
    long diaSourceId visit
    int detector
    long diaObjectId ssObjectId parentDiaSourceId
    double midpointMjdTai ra
    float raErr
    double dec
    float decErr ra_dec_Cov x xErr y yErr
    boolean centroid_flag
    float apFlux apFluxErr
    boolean apFlux_flag apFlux_flag_apertureTruncated isNegative
    float snr psfFlux psfFluxErr psfLnL psfChi2
    int psfNdata
    boolean psfFlux_flag psfFlux_flag_edge psfFlux_flag_noGoodPixels
    float trailFlux trailFluxErr
    double trailRa
    float trailRaErr
    double trailDec
    float trailDecErr trailLength trailLengthErr trailAngle trailAngleErr trailChi2
    int trailNdata
    boolean trail_flag_edge
    float dipoleMeanFlux dipoleMeanFluxErr dipoleFluxDiff dipoleFluxDiffErr dipoleLength dipoleAngle dipoleChi2
    int dipoleNdata
    float scienceFlux scienceFluxErr
    boolean forced_PsfFlux_flag forced_PsfFlux_flag_edge forced_PsfFlux_flag_noGoodPixels
    float templateFlux templateFluxErr ixx iyy ixy ixxPSF iyyPSF ixyPSF
    boolean shape_flag shape_flag_no_pixels shape_flag_not_contained shape_flag_parent_source
    float extendedness reliability
    string band
    boolean isDipole dipoleFitAttempted
    double timeProcessedMjdTai timeWithdrawnMjdTai
    int bboxSize
    boolean pixelFlags pixelFlags_bad pixelFlags_cr pixelFlags_crCenter pixelFlags_edge pixelFlags_nodata
    boolean pixelFlags_nodataCenter pixelFlags_interpolated pixelFlags_interpolatedCenter pixelFlags_offimage
    boolean pixelFlags_saturated pixelFlags_saturatedCenter pixelFlags_suspect pixelFlags_suspectCenter
    boolean pixelFlags_streak pixelFlags_streakCenter pixelFlags_injected pixelFlags_injectedCenter
    boolean pixelFlags_injected_template pixelFlags_injected_templateCenter glint_trail
"""
_FORCED_SOURCE = """
    long diaForcedSourceId diaObjectId
    double ra dec
    long visit
    int detector
    float psfFlux psfFluxErr
    double midpointMjdTai
    float scienceFlux scienceFluxErr
    string band
    double timeProcessedMjdTai timeWithdrawnMjdTai
"""


def _by_band(*lines: str) -> str:
    """Repeat lines of fields for each band, with its letter in place of ``*``."""
    return "\n".join(line.replace("*", band) for band in BANDS for line in lines)


_BAND_STATISTICS = (
    "float *_psfFluxMean *_psfFluxMeanErr *_psfFluxSigma",
    "int *_psfFluxNdata",
    "float *_fpFluxMean *_fpFluxMeanErr",
)
_DIA_OBJECT = f"""
    long diaObjectId
    double validityStartMjdTai ra
    float raErr
    double dec
    float decErr ra_dec_Cov
    {_by_band(*_BAND_STATISTICS)}
    {_by_band("float *_scienceFluxMean *_scienceFluxMeanErr")}
    {_by_band("float *_psfFluxMin *_psfFluxMax *_psfFluxMaxSlope *_psfFluxErrMean")}
    double firstDiaSourceMjdTai lastDiaSourceMjdTai
    int nDiaSources
"""
_SS_SOURCE = """
    long diaSourceId ssObjectId
    string designation
    double eclLambda eclBeta galLon galLat
    float elongation phaseAngle topoRange topoRangeRate helioRange helioRangeRate
    double ephRa ephDec
    float ephVmag ephRate ephRateRa ephRateDec ephOffset
    double ephOffsetRa ephOffsetDec
    float ephOffsetAlongTrack ephOffsetCrossTrack helio_x helio_y helio_z helio_vx helio_vy helio_vz helio_vtot
    float topo_x topo_y topo_z topo_vx topo_vy topo_vz topo_vtot
    int diaDistanceRank
"""
_MPC_ORBITS = """
    int id
    string designation packed_primary_provisional_designation unpacked_primary_provisional_designation mpc_orb_jsonb
    long created_at updated_at
    int orbit_type_int u_param nopp
    double arc_length_total arc_length_sel
    int nobs_total nobs_total_sel
    double a q e i node argperi peri_time yarkovsky srp a1 a2 a3 dt mean_anomaly period mean_motion
    double a_unc q_unc e_unc i_unc node_unc argperi_unc peri_time_unc yarkovsky_unc srp_unc a1_unc a2_unc a3_unc
    double dt_unc mean_anomaly_unc period_unc mean_motion_unc epoch_mjd h g not_normalized_rms normalized_rms earth_moid
    long fitting_datetime
"""
_CLF = """
    float snnSnVsOthers_score
    int cats_class
    float cats_score
    double earlySNIa_score
    float elephant_kstest_science elephant_kstest_template
"""
_XM = """
    string simbad_otype gaiadr3_DR3Name
    float gaiadr3_Plx gaiadr3_e_Plx
    int gaiadr3_VarFlag
    float legacydr8_zphot legacydr8_e_zphot legacydr8_pstar
    int legacydr8_fqual
    string tns_fullname tns_type
    float tns_redshift
    string gcvs_type x3hsp_type x4lac_type vsx_Type spicy_class mangrove_HyperLEDA_name mangrove_2MASS_name
    float mangrove_lum_dist mangrove_ang_dist
"""
_PRED = """
    boolean is_sso is_first is_cataloged
    int main_label_classifier
    string main_label_crossmatch
"""
_FULL = """
    long diaSourceId
    string observation_reason target_name
    nested diaSource prvDiaSources prvDiaForcedSources diaObject ssSource mpc_orbits
    bytes cutoutDifference cutoutScience cutoutTemplate
    double brokerIngestMjd
    string lsst_schema_version brokerStartProcessTimestamp fink_broker_version fink_science_version publisher
    nested lc_features clf xm pred misc
    string brokerEndProcessTimestamp timestamp
    int year month day
    string tns_type_recomputed
"""
#: What the portal's job makes of a light packet: these columns of the detection, and of the others these.
_LIGHT_SOURCE = (
    *("diaObjectId", "snr", "scienceFlux", "scienceFluxErr", "templateFlux", "templateFluxErr", "band"),
    *("midpointMjdTai", "ra", "dec", "reliability"),
)
_LIGHT = {
    *("diaSourceId", "observation_reason", "target_name", "brokerIngestMjd", "lsst_schema_version"),
    *("brokerStartProcessTimestamp", "fink_broker_version", "fink_science_version", "publisher", "lc_features"),
    *("clf", "xm", "pred", "misc", "brokerEndProcessTimestamp", "timestamp", "tns_type_recomputed"),
}


@cache
def light_schema() -> AvroSchema:
    """Build the writer schema of a light LSST alert: flat columns and what Fink adds, without light curve and cutouts.

    Returns: the Avro schema; it is shared, so it is not to be changed.
    """
    return flattened(full_schema(), "diaSource", _LIGHT_SOURCE, lambda name: name in _LIGHT)


@cache
def full_schema() -> AvroSchema:
    """Build the writer schema of a full LSST alert.

    Returns: the Avro schema; it is shared, so it is not to be changed.
    """
    return alert_record(
        _FULL,
        diaSource=record("diaSource", _DIA_SOURCE),
        prvDiaSources=nullable_array(record("prvDiaSources", _DIA_SOURCE)),
        prvDiaForcedSources=nullable_array(record("prvDiaForcedSources", _FORCED_SOURCE)),
        diaObject=record("diaObject", _DIA_OBJECT),
        ssSource=record("ssSource", _SS_SOURCE),
        mpc_orbits=record("mpc_orbits", _MPC_ORBITS),
        lc_features=nullable_map(record("topLevelRecord", LC_FEATURES)),
        clf=record("clf", _CLF),
        xm=record("xm", _XM),
        pred=record("pred", _PRED),
        misc=record("misc", "double firstDiaSourceMjdTaiFink"),
    )
