-- refused: start_it ends a transaction and is not autonomous
WHENEVER OSERROR EXIT FAILURE
WHENEVER SQLERROR EXIT FAILURE ROLLBACK
SET DEFINE ON SQLBLANKLINES ON

CREATE OR REPLACE PACKAGE BODY watched AS
  PROCEDURE start_it(p_id IN VARCHAR2) IS
  BEGIN
    INSERT INTO registry (process_id) VALUES (p_id);
    COMMIT;
  END start_it;
END watched;
/
