"""The Avro writer schemas of Fink's ZTF packets."""

from __future__ import annotations

from functools import cache

from tests.alerts.schemas import LC_FEATURES, AvroSchema, alert_record, flattened, nullable_array, nullable_map, record

# A candidate and an earlier candidate begin with the same fields.
_DETECTION = """
    double jd
    int fid
    long pid
    float diffmaglim
    string pdiffimfilename programpi
    int programid
    long candid
    string isdiffpos
    long tblid
    int nid rcid field
    float xpos ypos
    double ra dec
    float magpsf sigmapsf chipsf magap sigmagap distnr magnr sigmagnr chinr sharpnr sky magdiff fwhm classtar
    float mindtoedge magfromlim seeratio aimage bimage aimagerat bimagerat elong
    int nneg nbad
    float rb ssdistnr ssmagnr
    string ssnamenr
    float sumrat magapbig sigmagapbig
    double ranr decnr
"""
_CANDIDATE = f"""{_DETECTION}
    float sgmag1 srmag1 simag1 szmag1 sgscore1 distpsnr1
    int ndethist ncovhist
    double jdstarthist jdendhist scorr
    int tooflag
    long objectidps1 objectidps2
    float sgmag2 srmag2 simag2 szmag2 sgscore2 distpsnr2
    long objectidps3
    float sgmag3 srmag3 simag3 szmag3 sgscore3 distpsnr3
    int nmtchps
    long rfid
    double jdstartref jdendref
    int nframesref
    string rbversion
    float dsnrms ssnrms dsdiff magzpsci magzpsciunc magzpscirms
    int nmatches
    float clrcoeff clrcounc zpclrcov zpmed clrmed clrrms neargaia neargaiabright maggaia maggaiabright exptime drb
    string drbversion
"""
_PRV_CANDIDATE = f"""{_DETECTION}
    double scorr
    float magzpsci magzpsciunc magzpscirms clrcoeff clrcounc
    string rbversion
"""
#: What an upper limit of an earlier night still has.
UPPER_LIMIT = frozenset(
    field["name"]
    for field in record(
        "upper_limit",
        """
        double jd
        int fid programid nid rcid field
        long pid
        float diffmaglim magzpsci magzpsciunc magzpscirms clrcoeff clrcounc
        string pdiffimfilename programpi rbversion
        """,
    )["fields"]
)
_FULL = """
    long candid
    string schemavsn publisher objectId
    nested candidate prv_candidates cutoutScience cutoutTemplate cutoutDifference
    string brokerIngestTimestamp brokerStartProcessTimestamp fink_broker_version fink_science_version cdsxmatch
    string tns DR3Name
    float Plx e_Plx
    int gaiaVarFlag
    string gaiaClass vsx
    int spicy_id
    string spicy_class gcvs x3hsp x4lac
    nested mangrove
    int roid
    double rf_snia_vs_nonia snn_snia_vs_nonia snn_sn_vs_all mulens
    int nalerthist
    double rf_kn_vs_nonkn anomaly_score anomaly_score_beta anomaly_score_anais anomaly_score_emille
    double anomaly_score_julien anomaly_score_maria anomaly_score_emille_30days anomaly_score_varvara
    nested lc_features_g lc_features_r
    double jd_first_real_det jdstarthist_dt mag_rate sigma_rate lower_rate upper_rate delta_time
    boolean from_upper
    nested blazar_stats
    boolean is_transient
    double slsn_score
    string brokerEndProcessTimestamp tracklet timestamp
    int year month day
    string finkclass tnsclass
"""
#: What the portal's job makes of a light packet: these columns of the candidate, and of the others all but these.
_LIGHT_CANDIDATE = ("magpsf", "sigmapsf", "fid", "jd", "ra", "dec", "ssnamenr")
_NOT_LIGHT = {
    *("candidate", "prv_candidates", "cutoutScience", "cutoutTemplate", "cutoutDifference"),
    *("year", "month", "day"),
}


@cache
def light_schema() -> AvroSchema:
    """Build the writer schema of a light ZTF alert: flat columns, without light curve and cutouts.

    Returns: the Avro schema; it is shared, so it is not to be changed.
    """
    return flattened(full_schema(), "candidate", _LIGHT_CANDIDATE, lambda name: name not in _NOT_LIGHT)


@cache
def full_schema() -> AvroSchema:
    """Build the writer schema of a full ZTF alert.

    Returns: the Avro schema; it is shared, so it is not to be changed.
    """
    cutouts = ("cutoutScience", "cutoutTemplate", "cutoutDifference")
    return alert_record(
        _FULL,
        candidate=record("candidate", _CANDIDATE),
        prv_candidates=nullable_array(record("prv_candidates", _PRV_CANDIDATE)),
        mangrove=nullable_map("string"),
        blazar_stats=nullable_map("float"),
        lc_features_g=record("lc_features_g", LC_FEATURES),
        lc_features_r=record("lc_features_r", LC_FEATURES),
        **{name: record(name, "string fileName\nbytes stampData") for name in cutouts},
    )
